"""How fine a lattice, on how much of the line? Chosen on pilot runs, before the data under test are seen."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.inference.hypothesis import Hypothesis
from sigad.inference.lattice import Lattice, LatticeSearch, lattice
from sigad.inference.points import Points
from sigad.inference.truncated import Null, unit

ENOUGH = 0.95
"""The cheapest lattice that keeps this share of the power of the best one is chosen."""

LEVEL, TILT = 0.05, 3.0
"""The power is that of a test at this level against effects of so many standard deviations."""

BATCH = 16
"""Evaluations are counted in batches of this size."""

PRECISE = 1e-3
"""Tolerance of pilot runs: what has less weight does not matter for the choice."""


@dataclass(frozen=True)
class Candidate:
    """A lattice and what it gave on average over the pilots.

    ``evaluations`` of the detector; ``power`` of a test at the level 0.05 against an effect of three standard
    deviations, and ``own_weight`` of the observed point under the null hypothesis, each on average over where on the
    line of its pilot the statistic may lie (:meth:`Points.parted`).
    """

    spacing: float
    cell: float | None
    evaluations: float
    power: float
    own_weight: float

    def __str__(self) -> str:
        where = "the whole line" if self.cell is None else f"cells of {self.cell:g}"
        return (
            f"spacing {self.spacing:g} on {where}: {self.evaluations:.0f} evaluations, power "
            f"{self.power:.3f}, own weight {self.own_weight:.3f}"
        )


@dataclass(frozen=True)
class Choice:
    """``engine`` is what was chosen, ``chosen`` how it did on the pilots, beside all ``candidates``. Print it."""

    engine: Lattice
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    n_pilots: int

    def __str__(self) -> str:
        others = [f"  {candidate}" for candidate in self.candidates if candidate != self.chosen]
        return "\n".join([f"chosen on {self.n_pilots} pilots: {self.chosen}", "instead of", *others])


@dataclass(frozen=True)
class _Recorded(Hypothesis):
    """A pilot whose answers on the finest lattice are known: no candidate asks its detector again."""

    statistic: float
    null: Null
    spacing: float
    inside: dict[int, bool]

    @classmethod
    def of(cls, found: LatticeSearch) -> "_Recorded":
        points = found.points
        index = points.index[points.known].astype(int).tolist()
        answers = dict(zip(index, points.inside[points.known].tolist(), strict=True))
        return cls(points.statistic, points.null, points.spacing, answers)

    def same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        # Where nothing was asked on the finest lattice, there is next to no probability.
        index = np.rint((z - self.statistic) / self.spacing).astype(int).tolist()
        return np.array([self.inside.get(i, False) for i in index])


@dataclass(frozen=True)
class Pilots(Lattice):
    """An engine for pilot runs, on data that are independent of the data under test: it keeps what it found.

    >>> pilots = Pilots()
    >>> for image in held_out:
    ...     selective_test(image, detect, contrast, covariance=1.0, engine=pilots)
    >>> print(choice := pilots.choose(evaluations=400))
    >>> selective_test(x, detect, contrast, covariance=1.0, engine=choice.engine)

    Its ``spacing`` is the finest that can be chosen. Every pilot is evaluated once; coarser lattices are parts of the
    finest one, and so are their cells. Never let it see the data under test, whose p-value would not be valid.
    """

    spacing: float = 0.0125
    found: list[LatticeSearch] = field(default_factory=list, repr=False)

    def __call__(self, hypothesis: Hypothesis, **how) -> LatticeSearch:
        how["tolerance"] = PRECISE
        found = lattice(hypothesis, spacing=self.spacing, rng=self.rng, batch=self.batch, **how)
        self.found.append(found)
        return found

    def choose(self, *, evaluations: int = 400, levels: int = 5, cells: Sequence[float] = (4.0, 2.0, 1.0)) -> Choice:
        """The cheapest lattice that keeps nearly all of the power that any within a number of evaluations keeps; where
        none has any, the one of the smallest own weight.

        Parameters
        ----------
        evaluations : of the detector that a test may need, on average over the pilots.
        levels : each of so many coarser spacings is twice the one before.
        cells : widths tried, besides the whole line.

        Raises
        ------
        InvalidInputError : there are no pilots, or no candidate needs as few evaluations.
        """
        if not self.found:
            raise InvalidInputError("there are no pilots: test independent data, in which the detector finds something")
        recorded, candidates = [_Recorded.of(search) for search in self.found], []
        for cell in (None, *cells):
            for step in 2 ** np.arange(levels + 1):
                spacing = float(self.spacing * step)
                runs = [lattice(pilot, spacing=spacing, cell=cell, tolerance=0.01, batch=BATCH) for pilot in recorded]
                left = [found.points.parted(_parts(found.points, step, cell), LEVEL, TILT) for found in self.found]
                power, own_weight = np.mean(left, axis=0)
                needed = float(np.mean([run.n_evaluations for run in runs]))
                candidates.append(Candidate(spacing, cell, needed, float(power), float(own_weight)))
        affordable = [candidate for candidate in candidates if candidate.evaluations <= evaluations]
        if not affordable:
            raise InvalidInputError(
                f"no lattice needs as few as {evaluations} evaluations; the cheapest: {min(candidates, key=_cost)}"
            )
        best = max(candidate.power for candidate in affordable)
        if best > 0:
            chosen = min((c for c in affordable if c.power >= ENOUGH * best), key=_cost)
        else:  # the own weight exceeds the level everywhere
            chosen = min(affordable, key=lambda candidate: candidate.own_weight)
        engine = Lattice(spacing=chosen.spacing, cell=chosen.cell, rng=self.rng, batch=self.batch)
        return Choice(engine, chosen, tuple(candidates), len(self.found))


def _parts(points: Points, step: int, cell: float | None) -> NDArray[np.float64]:
    """Which coarser lattice, of so many times the spacing, and which cell each point lies in: a number for both."""
    with np.errstate(invalid="ignore"):
        lattices = points.index % step
        return lattices if cell is None else lattices + step * np.floor(points.z / (cell * unit(points.null)))


def _cost(candidate: Candidate) -> float:
    return candidate.evaluations
