"""Ties: an observation that lies on an end point of its own truncation region.

A continuous law puts it there with probability zero. Data do: copies of an instance, values that are rounded coarsely,
a score that equals the threshold. The truncated law then gives 0 or 1 for a p-value, whatever the data, and is not the
law of the statistic; no p-value is reported. For copies of the selected neighbour this costs no validity: whether it
has copies is part of the selection, and among the detections without one the p-value is uniform as ever.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.errors import NumericalError

EPS = float(np.finfo(np.float64).eps)

SLACK = 2.0**10
"""End points are known to so many times the resolution of the line, after all operations that lead to them."""


def require_interior(region: NDArray[np.float64], statistic: ArrayLike, resolution: ArrayLike) -> NDArray[np.float64]:
    """The region (..., m, 2), if each statistic (...,) lies inside of it, and not on an end point.

    Parameters
    ----------
    region : truncation regions.
    statistic : observed, in the units of the region.
    resolution : (...,) points of the line that are closer to each other are the same data in double precision: the
        rounding of the data over their change by a unit of the statistic.

    Raises
    ------
    NumericalError : a statistic lies outside, or cannot be told from an end point.
    """
    statistic, reach = np.asarray(statistic)[..., None], SLACK * np.asarray(resolution)[..., None]
    inside = ((region[..., 0] < statistic - reach) & (statistic + reach < region[..., 1])).any(axis=-1)
    if not inside.all():
        raise NumericalError(
            "the observation lies on an end point of its truncation region, where distances or scores are equal to "
            "rounding; a continuous law has no such ties: remove copies of the same instance from the training "
            "instances, and do not round values more coarsely than their noise"
        )
    return region


def require_no_copies(instances: NDArray[np.float64], which: Iterable[int]) -> None:
    """Raise NumericalError if one of those of the instances (n, *shape) that ``which`` numbers has a copy among them.

    Copies are not independent: no test takes the one for tested and the other for given, or both into a mean. Where an
    engine does not look for end points, nothing else tells.
    """
    rows = instances.reshape(len(instances), -1)
    few = rows[:, :: max(1, rows.shape[1] // 16)]  # seldom equal; only where they are, all is compared
    for i in which:
        equal = np.flatnonzero((few == few[i]).all(axis=1))
        if len(equal) > 1 and (rows[equal] == rows[i]).all(axis=1).sum() > 1:
            raise NumericalError(
                "an instance that is tested, or compared with, has a copy among the others, which is not independent "
                "of it: remove copies of the same instance, and do not round values more coarsely than their noise"
            )
