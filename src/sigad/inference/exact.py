"""The exact engine: the truncation region of a piecewise-linear detector, searched outward from the observed statistic
until the p-value is known."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sigad.errors import InvalidInputError, NumericalError
from sigad.inference import region as rg
from sigad.inference.hypothesis import PiecewiseHypothesis
from sigad.inference.region import Region
from sigad.inference.result import TOLERANCE, Decision, Tolerance
from sigad.inference.truncated import (
    Alternative,
    Null,
    log_mass,
    mean_confidence_interval,
    pvalue_bounds,
    support,
    truncated_pvalue,
)

NEGLIGIBLE = 1e-12
"""By default the window ends where the mass beyond is this share of the mass beyond the statistic."""

HALO = 2e-5
"""Half width, relative to max(1, |z|), of the neighbourhood in which an end point is first looked for again."""

FIRST = 1 / 8
"""Share of the widest window that is looked at first: enough to learn how much there is to find in the rest."""

GOALS = 32
"""Steps between what has been searched and the end of the window, on either side, that are tried as the next goal."""


@dataclass(frozen=True)
class Search:
    """What an engine found on the line.

    Attributes
    ----------
    statistic : observed.
    region : (m, 2) the truncation region within ``searched``: sorted disjoint intervals of z.
    searched : (low, high), the part of the line that has been searched.
    p_value : the selective p-value if nothing outside of ``searched`` belongs to the region.
    p_low, p_high : bounds on the p-value, whatever lies outside of ``searched``.
    n_evaluations : linear pieces looked at.
    seconds : wall time.
    """

    statistic: float
    region: Region
    searched: tuple[float, float]
    p_value: float
    p_low: float
    p_high: float
    n_evaluations: int
    seconds: float

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Selective confidence interval for the mean of the statistic (normal null), whatever lies outside of
        ``searched``.

        Truncation regions that extend further to the right move both bounds down, those that extend further to the
        left move them up: the lower bound takes all that is unknown on the right, the upper one all on the left.
        """
        right = rg.union(self.region, [[self.searched[1], np.inf]])
        left = rg.union(self.region, [[-np.inf, self.searched[0]]])
        return (
            mean_confidence_interval(self.statistic, right, level=level)[0],
            mean_confidence_interval(self.statistic, left, level=level)[1],
        )


def exact(
    hypothesis: PiecewiseHypothesis,
    *,
    alternative: Alternative = "two-sided",
    tolerance: Tolerance | Decision | float = TOLERANCE,
    window: tuple[float, float] | None = None,
    exhaustive: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Search:
    """The p-value of a hypothesis, given that the data lie where the selection is the observed one.

    The line is searched in steps outward from the statistic, on both sides at once, until ``p_high - p_low`` is within
    the tolerance or the window is exhausted. Everything that has not been searched, the tails beyond the window too,
    counts as unknown in the bounds. Each step leads to where the bounds would be close enough if nothing more were
    found, and no further.

    Parameters
    ----------
    hypothesis : the detector along the line; only its ``statistic``, ``null``, ``resolution`` and ``look`` are asked
        for.
    alternative : as in :func:`sigad.inference.truncated.truncated_pvalue`.
    tolerance : on p_high - p_low; a number is absolute.
    window : part of the line to search at most. By default it ends where the null has no more than 1e-12 of the mass
        that it has beyond the statistic. For ("chi", df), z >= 0.
    exhaustive : search the whole window, whatever the bounds.
    dtype : precision of the search. In single precision, every end point found is looked for again in double precision,
        in a tiny window around it that grows until both agree on its borders, and so is what single precision does not
        tell (a score that rests next to the threshold); and where single precision does not
        suffice (a score so close to the threshold that it takes the other side), all of it is done in double.

    Raises
    ------
    InvalidInputError : the statistic is not in the window, or the tolerance is negative.
    NumericalError : the selection at the statistic is not the observed one, in double precision too; or it changes
        right there, to rounding (:mod:`sigad.inference.ties`).
    """
    started = time.perf_counter()
    tolerance = Tolerance.of(tolerance)
    low, high = _window(hypothesis.statistic, hypothesis.null) if window is None else map(float, window)
    if not (np.isfinite([low, high]).all() and low <= hypothesis.statistic <= high and low < high):
        raise InvalidInputError(f"the statistic {hypothesis.statistic} is not in the finite window [{low}, {high}]")
    options = (alternative, tolerance, np.array([low, high]), exhaustive)
    try:
        found = _search(hypothesis, *options, dtype)
    except NumericalError:
        if dtype == torch.float64:
            raise
        found = _search(hypothesis, *options, torch.float64)
    region, searched, bounds, pieces = found
    hypothesis.interior(region)
    p_value = float(truncated_pvalue(hypothesis.statistic, region, null=hypothesis.null, alternative=alternative))
    ends = (float(searched[0]), float(searched[1]))
    return Search(hypothesis.statistic, region, ends, p_value, *bounds, pieces, time.perf_counter() - started)


def _search(
    hypothesis: PiecewiseHypothesis,
    alternative: Alternative,
    tolerance: Tolerance | Decision,
    widest: np.ndarray,
    exhaustive: bool,
    dtype: torch.dtype,
) -> tuple[Region, np.ndarray, tuple[float, float], int]:
    """The region, the part of the line searched (2,), the bounds on the p-value, and the pieces looked at."""
    statistic, null = hypothesis.statistic, hypothesis.null

    def bounds(found: Region, searched: np.ndarray) -> tuple:
        """Bounds on the p-value if the window (..., 2) has been searched."""
        return pvalue_bounds(statistic, found, searched[..., None, :], null=null, alternative=alternative)

    def goal(found: Region, searched: np.ndarray) -> np.ndarray:
        """The shortest larger window that is enough if nothing more is found in it."""
        if exhaustive:
            return widest
        sides = [np.linspace(*ends, GOALS + 1) for ends in zip(searched, widest, strict=True)]
        goals = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)
        larger = (goals != searched).any(1)  # the present window is known not to do, whatever its rounding
        fits = tolerance.met(*bounds(found, goals)) & larger
        fits[-1] = True
        return goals[fits][np.argmin(np.diff(goals[fits], axis=1))]

    low, high = widest
    width = FIRST * (high - low)
    searched = np.array([max(low, statistic - width / 2), min(high, statistic + width / 2)])
    region, doubtful, unseen, pieces = rg.EMPTY, rg.EMPTY, searched[None], 0
    while True:
        look = hypothesis.look(unseen, dtype)
        region, doubtful = (
            rg.union(old, rg.intersection(new, unseen)) for old, new in zip((region, doubtful), look[:2], strict=True)
        )
        pieces += look.pieces
        _check_holds(region, statistic)
        p_low, p_high = map(float, bounds(region, searched))
        done = (searched == widest).all() or (not exhaustive and tolerance.met(p_low, p_high))
        if done and dtype != torch.float64:
            region, doubtful = _polished(region, doubtful, searched, hypothesis), rg.EMPTY
            _check_holds(region, statistic)
            p_low, p_high = map(float, bounds(region, searched))
            done = (searched == widest).all() or tolerance.met(p_low, p_high)
        if done:
            return region, searched, (p_low, p_high), pieces
        seen, searched = searched, goal(region, searched)
        unseen = rg.intersection(searched[None], rg.complement(seen[None]))


def _check_holds(region: Region, statistic: float) -> None:
    if not rg.contains(region, statistic):
        raise NumericalError(
            f"the selection at the observed statistic {statistic} is not the observed selection: pass the data, the "
            "detector and the selection in the precision in which the selection was made, and without ties (copies of "
            "an instance, a score that equals the threshold)"
        )


def _window(statistic: float, null: Null) -> tuple[float, float]:
    """The window beyond which, on either side, the null has a negligible share of the mass beyond the statistic."""
    symmetric = support(null)[0] < 0
    far = abs(statistic) if symmetric else statistic
    upper = _where(lambda z: log_mass(z, np.inf, null), far, float(log_mass(far, np.inf, null)) + np.log(NEGLIGIBLE))
    if symmetric:
        return -upper, upper
    goal = float(log_mass(0.0, statistic, null)) + np.log(NEGLIGIBLE)
    return statistic - _where(lambda z: log_mass(0.0, statistic - z, null), 0.0, goal, statistic), upper


def _where(decreasing: Callable[[float], NDArray], start: float, goal: float, end: float = np.inf) -> float:
    """The smallest z >= start, to six digits, with decreasing(z) <= goal, by bisection."""
    step = 1.0
    while start + step < end and decreasing(start + step) > goal:
        step *= 2
    below, above = start, min(start + step, end)
    for _ in range(40):
        middle = (below + above) / 2
        below, above = (middle, above) if decreasing(middle) > goal else (below, middle)
    return above


def _polished(found: Region, doubtful: Region, window: np.ndarray, hypothesis: PiecewiseHypothesis) -> Region:
    """Replace the neighbourhoods of the end points inside the window, and of what is doubtful, by what double precision
    finds there."""
    halo = HALO
    while True:
        ends = found[(found > window[0]) & (found < window[1])]
        unsure = np.concatenate([np.stack([ends, ends], 1), doubtful])
        if not len(unsure):
            return found
        reach = halo * np.maximum(1.0, np.abs(unsure)) * [-1.0, 1.0]
        near = rg.intersection(rg.as_region(unsure + reach), [window])
        exact = rg.intersection(hypothesis.region(near), near)
        borders = near[(near > window[0]) & (near < window[1])]
        # A border belongs to both neighbourhood and rest: there both must say the same.
        if (rg.contains(found, borders) == rg.contains(exact, borders)).all():
            return rg.union(rg.intersection(found, rg.complement(near)), exact)
        halo *= 8
        if halo > 1:
            raise NumericalError("the search in low precision missed a part of the region; use float64 throughout")
