"""The lattice engine: an exact p-value for any deterministic detector, which is run at finitely many points of a line.

The truncation set Z = {z : same(z)} of a :class:`~sigad.inference.hypothesis.Hypothesis` may be anything. Given the
nuisance, and T mod h for a spacing h that was fixed without looking at T, the statistic T is a point of the lattice
T + h Z; under the null hypothesis it is the point z with a probability proportional to the null density f(z), z in Z.
Hence the p-value

    sum of f(z) over the lattice points in Z that are at least as extreme as T / sum of f(z) over all that are in Z

is super-uniform, whatever the detector is. Nothing is approximated. ``docs/lattice.md`` has the proof, the form of
refinement that is valid, and what is not valid.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.checks import generator, real_number, whole_number
from sigad.errors import InvalidInputError, NumericalError
from sigad.inference.hypothesis import Hypothesis
from sigad.inference.points import Points
from sigad.inference.region import Region
from sigad.inference.result import TOLERANCE, Decision, Tolerance
from sigad.inference.truncated import Alternative, check_alternative, unit

COUNTED = 1e-30
"""A refinement counts the points that have more than this probability of the null law on either side."""

MEND = (
    "make it deterministic (fix its seeds, draw noises beforehand) and independent of what else is in the batch "
    "(evaluation mode); if it is both, run it in double precision"
)


class Refinement(NamedTuple):
    """Halve the spacing, at most ``levels`` times, until at least so many lattice points lie in the truncation set."""

    levels: int
    points: int = 30


@dataclass(frozen=True, eq=False)
class LatticeSearch:
    """What the lattice engine found.

    Attributes
    ----------
    statistic : observed.
    p_value : ``p_high``, so that it is valid however early the search stopped.
    p_low, p_high : bounds on the p-value of the whole lattice.
    region : (m, 2) the lattice points known to lie in the truncation set, each as an interval [z, z].
    searched : (low, high), the outermost points that were evaluated.
    own_weight : probability of the observed point among these: what a conservative p-value cannot be smaller than.
    n_evaluations : points at which the detector was run.
    seconds : wall time.
    points : the lattice.
    """

    statistic: float
    p_value: float
    p_low: float
    p_high: float
    region: Region
    searched: tuple[float, float]
    own_weight: float
    n_evaluations: int
    seconds: float
    points: Points = field(repr=False)

    @property
    def n_points(self) -> int:
        """Lattice points known to lie in the truncation set."""
        return len(self.region)

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Selective confidence interval for the mean of the statistic (normal null), whatever was not evaluated."""
        if self.points.null != "normal":
            raise InvalidInputError(f"an interval for the mean needs the null law normal, not {self.points.null!r}")
        if not 0 < level < 1:
            raise InvalidInputError(f"level must lie between 0 and 1, not {level}")
        return self.points.mean_interval(level)


class Interrupted(KeyboardInterrupt):
    """A KeyboardInterrupt while the lattice was evaluated. ``result`` holds what was known until then: its bounds on
    the p-value are valid, and wide."""

    def __init__(self, result: LatticeSearch):
        super().__init__(
            f"after {result.n_evaluations} evaluations the p-value is known to lie in "
            f"[{result.p_low:.3g}, {result.p_high:.3g}]; the exception's `result` has the rest"
        )
        self.result = result


def lattice(
    hypothesis: Hypothesis,
    *,
    spacing: float,
    cell: float | None = None,
    refinement: Refinement | None = None,
    alternative: Alternative = "two-sided",
    tolerance: Tolerance | Decision | float = TOLERANCE,
    rng: np.random.Generator | None = None,
    batch: int = 128,
) -> LatticeSearch:
    """The p-value of a hypothesis, given the selection, the nuisance, and the statistic mod spacing.

    Points are evaluated in batches, the most probable first; all others count as unknown in the bounds. It is enough
    when the bounds are within the tolerance. Parts of the truncation set that are narrower than the spacing may be
    missed: that costs power, never validity.

    Parameters
    ----------
    hypothesis : any; only its ``statistic``, ``null`` and ``same`` are asked for.
    spacing : of the lattice, in the units of the statistic (where the covariance is estimated, in
        :func:`~sigad.inference.truncated.unit`, as is the cell). It, cell and refinement must have been fixed without
        the data under test; :class:`sigad.inference.spacing.Pilots` chooses them.
    cell : condition also on the cell [c * cell, (c + 1) * cell) that holds the statistic, which bounds the number of
        evaluations by cell / spacing and costs power.
    refinement : halve the spacing while too few lattice points lie in the truncation set.
    alternative : as in :func:`sigad.inference.truncated.truncated_pvalue`.
    tolerance : on p_high - p_low; a number is absolute. Or a
        :class:`~sigad.inference.result.Decision`.
    rng : the observed point's own weight counts by a uniform share drawn from it, so that the p-value is exactly
        uniform under the null hypothesis. None: it counts wholly, which is conservative and the same each time.
    batch : number of points between two looks at the bounds.

    Raises
    ------
    InvalidInputError : for a spacing, cell, refinement, alternative, rng or batch that is none.
    NumericalError : the detector answers differently when it is asked again, or in a batch and alone.
    Interrupted : on a KeyboardInterrupt, with the bounds that are known.
    """
    started, enough = time.perf_counter(), Tolerance.of(tolerance)
    levels = _checked_levels(spacing, cell, refinement, rng, batch)
    if not np.isfinite(hypothesis.statistic):
        raise InvalidInputError("the statistic must be finite")
    check_alternative(alternative)
    tail, length = 1.0 if refinement is None else COUNTED, unit(hypothesis.null)
    cell = None if cell is None else cell * length
    points = Points.of(float(hypothesis.statistic), hypothesis.null, spacing * length / 2**levels, cell, tail)
    share = None if rng is None else rng.uniform()
    low, high = 0.0, 1.0
    with _Questions(hypothesis, batch, len(points.index) - 2) as questions:
        try:
            if refinement is not None:
                points = _refined(points, refinement, questions)
            low, high = points.pvalue_bounds(alternative, share)
            for _ in questions(points, ~points.known):
                low, high = points.pvalue_bounds(alternative, share)
                if enough.met(low, high):
                    break
            questions.repeat(points)
        except KeyboardInterrupt as stop:
            raise Interrupted(_result(points, low, high, questions.asked, started)) from stop
    return _result(points, low, high, questions.asked, started)


@dataclass(frozen=True)
class Lattice:
    """The lattice engine with its settings, which are those of :func:`lattice`: what a test takes as its ``engine``.

    Raises InvalidInputError for settings that are none, so that a test names them whether or not something is selected.
    """

    spacing: float = 0.05
    cell: float | None = None
    refinement: Refinement | None = None
    rng: np.random.Generator | None = None
    batch: int = 128

    def __post_init__(self):
        _checked_levels(self.spacing, self.cell, self.refinement, self.rng, self.batch)

    def __call__(
        self,
        hypothesis: Hypothesis,
        *,
        alternative: Alternative = "two-sided",
        tolerance: Tolerance | Decision | float = TOLERANCE,
    ) -> LatticeSearch:
        return lattice(hypothesis, **vars(self), alternative=alternative, tolerance=tolerance)


def as_lattice(engine: "str | Lattice") -> Lattice:
    """The lattice engine by its name, with the settings that it has by default, or as it was given.

    Raises InvalidInputError for anything else.
    """
    if isinstance(engine, Lattice):
        return engine
    if isinstance(engine, str) and engine == "lattice":
        return Lattice()
    raise InvalidInputError(
        f'engine must be "lattice", Lattice(spacing=...), or "exact" where a test has it, not {engine!r}'
    )


def _refined(points: Points, refinement: Refinement, questions: "_Questions") -> Points:
    """The lattice with which the refinement ends. What it depends on is the same for each of its points."""
    central, index = points.central(COUNTED), points.index

    def enough(which: NDArray[np.bool_]) -> bool:
        which = which & central
        reached = lambda: (points.inside & which).sum() >= refinement.points  # noqa: E731
        return reached() or any(reached() for _ in questions(points, which))

    step = 2**refinement.levels
    lattice = _multiple(index, step)
    while step > 1 and not enough(lattice):
        added = _multiple(index, step // 2) & ~lattice
        if enough(added):
            # Had T been one of these points, the refinement would have stopped earlier: T is known not to be.
            break
        lattice, step = lattice | added, step // 2
    return points.thinned(step)


def _multiple(index: NDArray[np.float64], step: int) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return index % step == 0


class _Questions:
    """Runs the detector at points of the lattice, in batches, with a progress bar where a person waits."""

    def __init__(self, hypothesis: Hypothesis, batch: int, most: int):
        self.hypothesis, self.batch, self.asked = hypothesis, batch, 0
        self.bar = _progress_bar(most)

    def __enter__(self) -> "_Questions":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, points: Points, which: NDArray[np.bool_]) -> Iterator[None]:
        """Ask for those of these points (n,) that are not known, the most probable first, and stop after each batch."""
        todo = points.heaviest_first(which)
        for start in range(0, len(todo), self.batch):
            part = todo[start : start + self.batch]
            points.inside[part] = self._same(points.z[part])
            points.known[part] = True
            if points.known[points.own] and not points.inside[points.own]:
                raise NumericalError(
                    f"run again on the observed data, in a batch, the detector does not select what it selected: {MEND}"
                )
            yield

    def repeat(self, points: Points) -> None:
        """Ask again, alone, for the observed point and for those nearest to it next to which the answer changes."""
        known = np.flatnonzero(points.known)
        changes = known[1:][points.inside[known[1:]] != points.inside[known[:-1]]]
        nearest = changes[np.argsort(np.abs(points.index[changes]))][:2]
        for i in [*np.flatnonzero(points.own), *nearest]:
            if self._same(points.z[[i]])[0] != points.inside[i]:
                raise NumericalError(
                    f"run again at the point {points.z[i]} of the line, alone, the detector answers differently: {MEND}"
                )

    def _same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        same = np.asarray(self.hypothesis.same(z))
        if same.shape != z.shape or same.dtype != bool:
            raise InvalidInputError(
                f"same(z) must give one bool for each of the {len(z)} points, not {same.dtype} of shape {same.shape}"
            )
        self.asked += len(z)
        if self.bar is not None:
            self.bar.update(len(z))
        return same


def _progress_bar(total: int):
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc="lattice", unit="point", leave=False, delay=1.0, disable=None)


def _result(points: Points, low: float, high: float, asked: int, started: float) -> LatticeSearch:
    z, weights, inside = points.z, points.log_weights(), points.inside | points.own
    asked_for = z[points.known | points.own]
    return LatticeSearch(
        statistic=points.statistic,
        p_value=high,
        p_low=low,
        p_high=high,
        region=np.repeat(z[points.inside], 2).reshape(-1, 2),
        searched=(float(asked_for.min()), float(asked_for.max())),
        own_weight=float(np.exp(weights[points.own].item() - np.logaddexp.reduce(weights[inside]))),
        n_evaluations=asked,
        seconds=time.perf_counter() - started,
        points=points,
    )


def _checked_levels(spacing, cell, refinement, rng, batch) -> int:
    """How often the spacing can be halved, if all settings are sound."""
    for name, value in (("spacing", spacing), *([] if cell is None else [("cell", cell)])):
        if not 0 < real_number(value, name):
            raise InvalidInputError(f"{name} must be positive and finite, not {value}")
    if rng is not None:
        generator(rng)
    whole_number(batch, "batch", least=1)
    if refinement is None:
        return 0
    if not isinstance(refinement, Refinement):
        raise InvalidInputError(f"refinement must be None or Refinement(levels, points), not {refinement!r}")
    whole_number(refinement.points, "points of a refinement", least=1)
    return whole_number(refinement.levels, "levels of a refinement", least=1)
