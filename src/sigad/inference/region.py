"""Finite unions of closed intervals of the real line, with vectorised set algebra.

A region is a float64 array of shape (m, 2): one row [lower, upper] per interval, sorted, disjoint, ``lower < upper``;
bounds may be infinite. A *batch* of regions has shape (..., m, 2), and its rows are padded with the empty interval
[inf, inf] where one region has fewer intervals than another. Single points carry no probability and are dropped, so
two intervals that touch are one interval, and the complement of a region is again closed.

All set operations reduce to one sweep, :func:`covered_at_least`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.errors import InvalidInputError

Region = NDArray[np.float64]

WHOLE_LINE: Region = np.array([[-np.inf, np.inf]])
EMPTY: Region = np.empty((0, 2))


def covered_at_least(intervals: ArrayLike, count: ArrayLike = 1) -> Region:
    """The set of points that lie in at least ``count`` of the given intervals.

    Parameters
    ----------
    intervals : (..., m, 2) in any order, overlapping or not; rows with ``lower >= upper`` are empty.
    count : how many intervals must cover a point, at least 1; one number, or one for each set of intervals (...,).

    Returns
    -------
    (..., m', 2) sorted disjoint regions, padded with [inf, inf]; m' is the largest number of intervals in the batch.
    """
    intervals = np.asarray(intervals, dtype=np.float64)
    if intervals.ndim < 2 or intervals.shape[-1] != 2:
        raise InvalidInputError(f"intervals must have shape (..., m, 2), not {intervals.shape}")
    if np.isnan(intervals).any():
        raise InvalidInputError("intervals must not contain NaN")
    count = np.asarray(count)
    if (count < 1).any():
        raise InvalidInputError(f"count must be at least 1, not {count}")
    lower, upper = intervals[..., 0], intervals[..., 1]
    empty = ~(lower < upper)
    m = intervals.shape[-2]
    # The lower bounds stand first, and the sort is stable: at equal positions an interval opens before another closes,
    # which merges the intervals that touch.
    position = np.concatenate([np.where(empty, np.inf, lower), np.where(empty, np.inf, upper)], axis=-1)
    order = np.argsort(position, axis=-1, kind="stable")
    position = np.take_along_axis(position, order, axis=-1)
    inside = np.cumsum(np.where(order < m, 1, -1), axis=-1) >= count[..., None]
    before = np.concatenate([np.zeros_like(inside[..., :1]), inside[..., :-1]], axis=-1)
    starts, ends = inside & ~before, before & ~inside
    result = np.full((*intervals.shape[:-2], max(int(starts.sum(-1).max(initial=0)), 0), 2), np.inf)
    for side, flags in enumerate((starts, ends)):
        rank = np.cumsum(flags, axis=-1) - 1
        where = np.nonzero(flags)
        result[(*where[:-1], rank[where], side)] = position[where]
    return _drop_points(result)


def _drop_points(region: Region) -> Region:
    """Turn rows of zero width into padding and shorten the padding to what is needed."""
    point = ~(region[..., 0] < region[..., 1])
    if not point.any():
        return region
    region = np.where(point[..., None], np.inf, region)
    order = np.argsort(region[..., 0], axis=-1, kind="stable")
    region = np.take_along_axis(region, order[..., None], axis=-2)
    return region[..., : int((~point).sum(-1).max(initial=0)), :]


def as_region(intervals: ArrayLike) -> Region:
    """Sort, merge and drop empty intervals: the union of the given intervals, (..., m, 2)."""
    intervals = np.asarray(intervals, dtype=np.float64)
    return covered_at_least(intervals.reshape(0, 2) if intervals.size == 0 and intervals.ndim < 2 else intervals)


def union(*regions: ArrayLike) -> Region:
    """The points that lie in at least one of the regions."""
    return covered_at_least(np.concatenate([np.asarray(r, dtype=np.float64) for r in regions], axis=-2))


def intersection(*regions: ArrayLike) -> Region:
    """The points that lie in all of the regions; each argument must be sorted and disjoint in itself."""
    return covered_at_least(np.concatenate([np.asarray(r, dtype=np.float64) for r in regions], axis=-2), len(regions))


def complement(region: ArrayLike) -> Region:
    """The closure of the points that do not lie in the region; the argument must be sorted and disjoint."""
    region = np.asarray(region, dtype=np.float64)
    edge = np.full((*region.shape[:-2], 1), np.inf)
    lower = np.concatenate([-edge, region[..., 1]], axis=-1)
    upper = np.concatenate([region[..., 0], edge], axis=-1)
    return covered_at_least(np.stack([lower, upper], axis=-1))


def contains(region: ArrayLike, points: ArrayLike) -> NDArray[np.bool_]:
    """Whether each point (...,) lies in the region (..., m, 2); bounds belong to the region."""
    region, points = np.asarray(region, dtype=np.float64), np.asarray(points, dtype=np.float64)
    return np.logical_or.reduce((region[..., 0] <= points[..., None]) & (points[..., None] <= region[..., 1]), axis=-1)


def component(region: ArrayLike, point: float) -> Region:
    """The interval of the region (m, 2) that contains the point, as a region of shape (1, 2), or (0, 2) if none."""
    region = np.asarray(region, dtype=np.float64)
    return region[(region[:, 0] <= point) & (point <= region[:, 1])][:1]


def length(region: ArrayLike) -> NDArray[np.float64]:
    """Total length of each region, (...,)."""
    region = np.asarray(region, dtype=np.float64)
    width = np.zeros(region.shape[:-1])
    np.subtract(region[..., 1], region[..., 0], out=width, where=region[..., 0] < region[..., 1])
    return width.sum(axis=-1)
