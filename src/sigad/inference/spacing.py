"""How fine a lattice, on how much of the line? Chosen on pilot runs, before the data under test are seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.inference.hypothesis import Hypothesis
from sigad.inference.lattice import Lattice, LatticeSearch, lattice
from sigad.inference.truncated import Null

ENOUGH = 0.95
"""The cheapest lattice that keeps this share of the information of the best one is chosen."""

BATCH = 16
"""Evaluations are counted in batches of this size."""


@dataclass(frozen=True)
class Candidate:
    """A lattice and what it gave on average over the pilots.

    ``evaluations`` of the detector; ``information`` that is left about the mean (:meth:`Points.information`);
    ``own_weight`` of the observed point.
    """

    spacing: float
    cell: float | None
    evaluations: float
    information: float
    own_weight: float

    def __str__(self) -> str:
        where = "the whole line" if self.cell is None else f"cells of {self.cell:g}"
        return (
            f"spacing {self.spacing:g} on {where}: {self.evaluations:.0f} evaluations, information "
            f"{self.information:.3f}, own weight {self.own_weight:.3f}"
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


def choose_spacing(
    pilots: Iterable[Hypothesis],
    *,
    evaluations: int = 400,
    finest: float = 0.0125,
    levels: int = 5,
    cells: Sequence[float] = (4.0, 2.0, 1.0),
    engine: Lattice | None = None,
) -> Choice:
    """The lattice that keeps most information within a number of evaluations, from pilots.

    Every pilot is evaluated once, on the finest lattice. Coarser ones are parts of it, and so are their cells.

    Parameters
    ----------
    pilots : hypotheses about data that are independent of the data under test: held-out images on which the detector
        selected something. Never the data under test itself, which would make its p-value invalid.
    evaluations : of the detector that a test may need, on average over the pilots.
    finest : smallest spacing tried; each of the ``levels`` others is twice the one before.
    cells : widths tried, besides the whole line.
    engine : whose other settings (batch, generator) are kept.

    Raises
    ------
    InvalidInputError : there are no pilots, or no candidate needs as few evaluations.
    """
    engine = engine or Lattice()
    found = [lattice(pilot, spacing=finest, tolerance=1e-3, batch=engine.batch) for pilot in pilots]
    if not found:
        raise InvalidInputError(
            "there are no pilots: run the detector on independent data on which it selects something"
        )
    recorded = [_Recorded.of(search) for search in found]
    candidates = []
    for cell in (None, *cells):
        for spacing in finest * 2.0 ** np.arange(levels + 1):
            runs = [lattice(pilot, spacing=spacing, cell=cell, tolerance=0.01, batch=BATCH) for pilot in recorded]
            means = np.mean([(r.n_evaluations, r.points.information(), r.own_weight) for r in runs], axis=0)
            candidates.append(Candidate(float(spacing), cell, *map(float, means)))
    affordable = [candidate for candidate in candidates if candidate.evaluations <= evaluations]
    if not affordable:
        raise InvalidInputError(
            f"no lattice needs as few as {evaluations} evaluations; the cheapest: {min(candidates, key=_cost)}"
        )
    best = max(candidate.information for candidate in affordable)
    chosen = min((c for c in affordable if c.information >= ENOUGH * best), key=_cost)
    return Choice(replace(engine, spacing=chosen.spacing, cell=chosen.cell), chosen, tuple(candidates), len(found))


def _cost(candidate: Candidate) -> float:
    return candidate.evaluations
