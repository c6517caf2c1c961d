"""Search along the line for the truncation region, outward from the observed statistic, until the p-value is known."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sigad.errors import InvalidInputError, NumericalError
from sigad.inference import region as rg
from sigad.inference.region import Region
from sigad.inference.truncated import Alternative, Null, log_mass, pvalue_bounds, truncated_pvalue

Selection = Callable[[Region], tuple[Region, int]]
"""Windows (k, 2) -> the part of them where the selection equals the observed one, (m, 2), and the number of linear
pieces looked at."""

NEGLIGIBLE = 1e-12
"""By default the window ends where the mass beyond is this share of the mass beyond the statistic."""

HALO = 2e-5
"""Half width, relative to max(1, |z|), of the neighbourhood in which an end point is first looked for again."""

FIRST = 1 / 8
"""Share of the widest window that is looked at first: enough to learn how much there is to find in the rest."""

GOALS = 32
"""Steps between what has been searched and the end of the window, on either side, that are tried as the next goal."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    region : (m, 2) the truncation region within ``searched``: sorted disjoint intervals of z.
    searched : (low, high), the part of the line that has been searched.
    p_value : the selective p-value if nothing outside of ``searched`` belongs to the region.
    p_low, p_high : bounds on the p-value, whatever lies outside of ``searched``.
    n_pieces : number of linear pieces looked at.
    seconds : wall time.
    """

    region: Region
    searched: tuple[float, float]
    p_value: float
    p_low: float
    p_high: float
    n_pieces: int
    seconds: float


def search(
    select: Selection,
    statistic: float,
    *,
    null: Null = "normal",
    alternative: Alternative = "two-sided",
    window: tuple[float, float] | None = None,
    atol: float = 1e-6,
    rtol: float = 0.01,
    exhaustive: bool = False,
    polish: Selection | None = None,
) -> SearchResult:
    """The p-value of a statistic, given that the data lie where the selection is the observed one.

    The line is searched in steps outward from the statistic, on both sides at once, until
    ``p_high - p_low <= max(atol, rtol * p_high)`` or the window is exhausted. Everything that has not been searched,
    the tails beyond the window too, counts as unknown in the bounds. Each step leads to where the bounds would be close
    enough if nothing more were found, and no further.

    Parameters
    ----------
    select : called as ``select(windows)`` for windows (k, 2), finite, sorted and disjoint. It returns the part of them
        on which the selection equals the observed one, an (m, 2) array of sorted disjoint intervals, and the number of
        linear pieces it went through. It knows the image, the detector and the observed selection; this function knows
        none of them. For a detector that marks where a score exceeds a threshold::

            line = sigad.line.Restriction(score_map, x_obs - statistic * b, b, memory_budget=2**30)

            def select(windows):
                parts = list(line.chunks(*windows))
                agree = [sigad.line.agreement(f, threshold, observed) for f in parts]
                return sigad.inference.region.union(*agree), sum(f.pieces for f in parts)

        Memory is bounded by the Restriction, whatever the length of the windows.
    statistic : the observed statistic, in units of its standard deviation under the normal null.
    null, alternative : as in :func:`sigad.inference.truncated.truncated_pvalue`. For ("chi", df), z >= 0.
    window : part of the line to search at most. By default it ends where the null has no more than 1e-12 of the mass
        that it has beyond the statistic.
    atol, rtol : tolerance on p_high - p_low, absolute and relative to p_high.
    exhaustive : search the whole window, whatever the bounds.
    polish : the same selection in higher precision (a Restriction in float64). It is asked for a tiny window around
        each end point that ``select`` found, which replaces what was found there; the windows grow until both agree
        on their borders.

    Raises
    ------
    InvalidInputError : the statistic is not in the window, or a tolerance is negative.
    NumericalError : the statistic does not lie in the region found, or polishing contradicts the search.
    """
    started = time.perf_counter()
    low, high = _window(statistic, null) if window is None else map(float, window)
    if not (np.isfinite([low, high]).all() and low <= statistic <= high and low < high):
        raise InvalidInputError(f"the statistic {statistic} is not in the finite window [{low}, {high}]")
    if atol < 0 or rtol < 0:
        raise InvalidInputError("atol and rtol must not be negative")

    def bounds(found: Region, searched: np.ndarray) -> tuple:
        """Bounds on the p-value if the window (..., 2) has been searched."""
        return pvalue_bounds(statistic, found, searched[..., None, :], null=null, alternative=alternative)

    def enough(p_low, p_high):
        return p_high - p_low <= np.maximum(atol, rtol * p_high)

    def goal(found: Region, searched: np.ndarray) -> np.ndarray:
        """The shortest larger window that is enough if nothing more is found in it."""
        if exhaustive:
            return widest
        sides = [np.linspace(*ends, GOALS + 1) for ends in zip(searched, widest, strict=True)]
        goals = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)
        larger = (goals != searched).any(1)  # the present window is known not to do, whatever its rounding
        fits = enough(*bounds(found, goals)) & larger
        fits[-1] = True
        return goals[fits][np.argmin(np.diff(goals[fits], axis=1))]

    widest, width = np.array([low, high]), FIRST * (high - low)
    searched = np.array([max(low, statistic - width / 2), min(high, statistic + width / 2)])
    region, unseen, pieces = rg.EMPTY, searched[None], 0
    while True:
        found, count = select(unseen)
        region, pieces = rg.union(region, rg.intersection(found, unseen)), pieces + count
        _check_holds(region, statistic, 0.0 if polish is None else HALO * max(1.0, abs(statistic)))
        p_low, p_high = map(float, bounds(region, searched))
        done = (searched == widest).all() or (not exhaustive and enough(p_low, p_high))
        if done and polish is not None:
            region = _polished(region, searched, polish)
            _check_holds(region, statistic, 0.0)
            p_low, p_high = map(float, bounds(region, searched))
            done = (searched == widest).all() or enough(p_low, p_high)
        if done:
            break
        seen, searched = searched, goal(region, searched)
        unseen = rg.intersection(searched[None], rg.complement(seen[None]))
    p_value = float(truncated_pvalue(statistic, region, null=null, alternative=alternative))
    ends = (float(searched[0]), float(searched[1]))
    return SearchResult(region, ends, p_value, p_low, p_high, pieces, time.perf_counter() - started)


def _check_holds(region: Region, statistic: float, reach: float) -> None:
    if not rg.contains(region + np.array([-reach, reach]), statistic):
        raise NumericalError(
            f"the selection at the observed statistic {statistic} is not the observed selection: "
            "pass the data, the detector and the selection in the precision in which the selection was made"
        )


def _window(statistic: float, null: Null) -> tuple[float, float]:
    """The window beyond which, on either side, the null has a negligible share of the mass beyond the statistic."""
    far = abs(statistic) if null == "normal" else statistic
    upper = _where(lambda z: log_mass(z, np.inf, null), far, float(log_mass(far, np.inf, null)) + np.log(NEGLIGIBLE))
    if null == "normal":
        return -upper, upper
    goal = float(log_mass(0.0, statistic, null)) + np.log(NEGLIGIBLE)
    return statistic - _where(lambda z: log_mass(0.0, statistic - z, null), 0.0, goal, statistic), upper


def _where(decreasing: Callable[[float], float], start: float, goal: float, end: float = np.inf) -> float:
    """The smallest z >= start, to six digits, with decreasing(z) <= goal, by bisection."""
    step = 1.0
    while start + step < end and decreasing(start + step) > goal:
        step *= 2
    below, above = start, min(start + step, end)
    for _ in range(40):
        middle = (below + above) / 2
        below, above = (middle, above) if decreasing(middle) > goal else (below, middle)
    return above


def _polished(found: Region, window: np.ndarray, polish: Selection) -> Region:
    """Replace the neighbourhoods of the end points inside the window by what `polish` finds there."""
    halo = HALO
    while True:
        ends = found[(found > window[0]) & (found < window[1])]
        if not len(ends):
            return found
        reach = halo * np.maximum(1.0, np.abs(ends))
        near = rg.intersection(rg.as_region(np.stack([ends - reach, ends + reach], 1)), [window])
        exact = rg.intersection(polish(near)[0], near)
        borders = near[(near > window[0]) & (near < window[1])]
        # A border belongs to both neighbourhood and rest: there both must say the same.
        if (rg.contains(found, borders) == rg.contains(exact, borders)).all():
            return rg.union(rg.intersection(found, rg.complement(near)), exact)
        halo *= 8
        if halo > 1:
            raise NumericalError("the search in low precision missed a part of the region; use float64 throughout")
