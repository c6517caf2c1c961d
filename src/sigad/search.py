"""Search along the line for the truncation region, outward from the observed statistic, until the p-value is known."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sigad import region as rg
from sigad.errors import InvalidInputError, NumericalError
from sigad.region import Region
from sigad.truncated import Alternative, Null, log_mass, pvalue_bounds, truncated_pvalue

Selection = Callable[[float, float], tuple[Region, int]]
"""(low, high) -> the part of [low, high] where the selection equals the observed one, (m, 2), and the number of linear
pieces looked at."""

NEGLIGIBLE = 1e-12
"""By default the window ends where the mass beyond is this share of the mass beyond the statistic."""

HALO = 2e-5
"""Half width, relative to max(1, |z|), of the neighbourhood in which an end point is first looked for again."""

PIECES_PER_STEP = 512
"""Steps aim at so many pieces, or a quarter of all so far: few fixed costs, and news soon enough to act on."""

GROWTH = 8
"""A step is at most so many times as wide as the one before, whose density of pieces says little about it."""

GOALS = np.linspace(0, 1, 65)[1:]
"""Windows that are tried as the goal of the search, as shares of the widest one."""


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

    The line is searched in steps outward from the statistic, always on the side that narrows the bounds more, until
    ``p_high - p_low <= max(atol, rtol * p_high)`` or the window is exhausted. Everything that has not been searched,
    the tails beyond the window too, counts as unknown in the bounds. No step leads beyond where the bounds would be
    close enough if nothing more were found.

    Parameters
    ----------
    select : called as ``select(low, high)`` for finite low < high, on adjacent windows. It returns the sub-region of
        [low, high] on which the selection equals the observed one, an (m, 2) array of sorted disjoint intervals, and
        the number of linear pieces it went through. It knows the image, the detector and the observed selection; this
        function knows none of them. For a detector that marks where a score exceeds a threshold::

            line = sigad.line.Restriction(score_map, x_obs - statistic * b, b, memory_budget=2**30)

            def select(low, high):
                parts = list(line.chunks(low, high))
                agree = [sigad.line.agreement(f, threshold, observed) for f in parts]
                return sigad.region.union(*agree), sum(f.pieces for f in parts)

        Memory is bounded by the Restriction, whatever the length of [low, high].
    statistic : the observed statistic, in units of its standard deviation under the normal null.
    null, alternative : as in :func:`sigad.truncated.truncated_pvalue`. For ("chi", df), z >= 0.
    window : part of the line to search at most. By default it ends where the null has no more than 1e-12 of the mass
        that it has beyond the statistic.
    atol, rtol : tolerance on p_high - p_low, absolute and relative to p_high.
    exhaustive : search the whole window, whatever the bounds.
    polish : the same selection in higher precision (a Restriction in float64). Around each end point that ``select``
        found it is asked for a tiny window, which replaces what was found there; the window grows until both agree
        on its borders. Costs a few network passes per end point.

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

    def bounds(found: Region, left, right) -> tuple:
        """Bounds on the p-value if [left, right] has been searched; vectorised over windows."""
        searched = np.stack(np.broadcast_arrays(left, right), -1)[..., None, :]
        return pvalue_bounds(statistic, found, searched, null=null, alternative=alternative)

    def enough(p_low, p_high):
        return p_high - p_low <= np.maximum(atol, rtol * p_high)

    def goal(found: Region, left: float, right: float) -> tuple[float, float]:
        """The smallest window, balanced around the middle, that would be enough if nothing more were found."""
        if exhaustive:
            return low, high
        half = GOALS * (high - low) / 2
        to_left = np.minimum(left, np.maximum((low + high) / 2 - half, low))
        to_right = np.maximum(right, np.minimum((low + high) / 2 + half, high))
        to_left[-1], to_right[-1] = low, high  # not up to rounding: the search has to end there
        further = (to_left < left) | (to_right > right)  # the present window is known not to do, whatever its rounding
        fits = enough(*bounds(found, to_left, to_right)) & further
        fits[-1] = True
        at = int(fits.argmax())
        return float(to_left[at]), float(to_right[at])

    def look(a: float, b: float) -> tuple[Region, int]:
        found, count = select(a, b)
        found = rg.intersection(found, [[a, b]])
        return (found, count) if polish is None else (_polished(found, (a, b), polish), count)

    width = (high - low) / 16
    left, right = max(low, statistic - width / 2), min(high, statistic + width / 2)
    region, pieces = look(left, right)
    if not rg.contains(region, statistic):
        raise NumericalError(
            f"the selection at the observed statistic {statistic} is not the observed selection: "
            "pass the data, the detector and the selection in the precision in which the selection was made"
        )
    step_pieces, step_width = pieces, right - left
    while True:
        p_low, p_high = map(float, bounds(region, left, right))
        if (left, right) == (low, high) or (not exhaustive and enough(p_low, p_high)):
            break
        width = min(step_width * max(PIECES_PER_STEP, pieces / 4) / max(step_pieces, 1), GROWTH * step_width)
        farthest = goal(region, left, right)
        to_left, to_right = _step(left, farthest[0], -width), _step(right, farthest[1], width)
        gap_left, gap_right = np.subtract(*bounds(region, [to_left, left], [right, to_right])[::-1])
        if to_right == right or (to_left != left and gap_left <= gap_right):
            found, count = look(to_left, left)
            step_width, left = left - to_left, to_left
        else:
            found, count = look(right, to_right)
            step_width, right = to_right - right, to_right
        region, step_pieces, pieces = rg.union(region, found), count, pieces + count
    p_value = float(truncated_pvalue(statistic, region, null=null, alternative=alternative))
    return SearchResult(region, (left, right), p_value, p_low, p_high, pieces, time.perf_counter() - started)


def _step(start: float, end: float, width: float) -> float:
    """Go from start by width towards end; all the way if only a sliver would remain."""
    return end if abs(end - start) <= 1.25 * abs(width) else start + width


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


def _polished(found: Region, window: tuple[float, float], polish: Selection) -> Region:
    """Replace the neighbourhoods of the end points inside the window by what `polish` finds there."""
    halo = HALO
    while True:
        ends = found[(found > window[0]) & (found < window[1])]
        if not len(ends):
            return found
        reach = halo * np.maximum(1.0, np.abs(ends))
        near = rg.intersection(rg.as_region(np.stack([ends - reach, ends + reach], 1)), [list(window)])
        exact = rg.union(rg.EMPTY, *(rg.intersection(polish(a, b)[0], [[a, b]]) for a, b in near.tolist()))
        borders = near[(near > window[0]) & (near < window[1])]
        # A border belongs to both neighbourhood and rest: there both must say the same.
        if (rg.contains(found, borders) == rg.contains(exact, borders)).all():
            return rg.union(rg.intersection(found, rg.complement(near)), exact)
        halo *= 8
        if halo > 1:
            raise NumericalError("the search in low precision missed a part of the region; use float64 throughout")
