"""Against what a detected instance is tested: a difference, the selection that it conditions on, and its region.

This is all that distinguishes the tests of :func:`sigad.knn.knn_test`; statistic, null distribution and p-value are the
same for each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.checks import flag
from sigad.errors import InvalidInputError
from sigad.knn.closed_form import selection_region
from sigad.knn.detection import Detections, KnnSelection
from sigad.knn.neighbourhood import members, neighbourhood_region

Against = Literal["neighbour", "neighbourhood"] | int


class NeighbourhoodSelection(NamedTuple):
    """What is conditioned on: the nearest training instances ``indices`` as a set; and the anomaly score."""

    indices: tuple[int, ...]
    score: float

    def __repr__(self) -> str:
        return f"NeighbourhoodSelection(indices={self.indices}, score={self.score:.4g})"


@dataclass(frozen=True)
class AgainstNeighbour:
    """The k-th neighbour (Niihori et al. 2025); ``condition_on_k``: the selected k is part of the selection."""

    condition_on_k: bool = True
    factor = 2.0

    def difference(self, detections: Detections) -> NDArray[np.float64]:
        """x_test - x_j, (B, d); its covariance is ``factor`` times that of an instance."""
        return detections.difference

    def region(self, detections: Detections) -> NDArray[np.float64]:
        """The r = z/T with the observed selection, (B, m, 2), in closed form."""
        return selection_region(detections, condition_on_k=self.condition_on_k)

    def compared(self, detections: Detections) -> NDArray[np.int64]:
        """With which training instances each is compared, (B, 1)."""
        return detections.index[:, None]

    def selections(self, detections: Detections) -> Sequence[KnnSelection]:
        return detections.selections


@dataclass(frozen=True)
class AgainstNeighbourhood:
    """The mean of the ``m`` nearest (:mod:`sigad.knn.neighbourhood`)."""

    m: int

    @property
    def factor(self) -> float:
        return 1 + 1 / self.m

    def difference(self, detections: Detections) -> NDArray[np.float64]:
        """x_test minus the mean of its m nearest, (B, d); its covariance is ``factor`` times that of an instance."""
        inside = members(detections, self.m)
        return detections.x_test - np.einsum("bn,bnd->bd", inside / self.m, detections.x_train)

    def region(self, detections: Detections) -> NDArray[np.float64]:
        """The r = z/T with the observed selection, (B, p, 2), in closed form."""
        return neighbourhood_region(detections, members(detections, self.m))

    def compared(self, detections: Detections) -> NDArray[np.int64]:
        """With which training instances each is compared, (B, m)."""
        return np.nonzero(members(detections, self.m))[1].reshape(-1, self.m)

    def selections(self, detections: Detections) -> Sequence[NeighbourhoodSelection]:
        return [
            NeighbourhoodSelection(tuple(s.tolist()), float(a))
            for s, a in zip(self.compared(detections), detections.score, strict=True)
        ]


def parse_against(
    against: Against, *, candidates: Sequence[int], n: int, condition_on_k: bool
) -> AgainstNeighbour | AgainstNeighbourhood:
    """The test that is asked for: "neighbour", "neighbourhood" (as many as the largest candidate), or m of the n."""
    condition_on_k = flag(condition_on_k, "condition_on_k")
    if isinstance(against, str) and against == "neighbour":
        return AgainstNeighbour(condition_on_k)
    m = max(candidates) if isinstance(against, str) and against == "neighbourhood" else against
    if not isinstance(m, Integral) or isinstance(m, bool) or not 1 <= m <= n:
        raise InvalidInputError(
            'against must be "neighbour", "neighbourhood", or a number of nearest instances between 1 and '
            f"n = {n}, not {against!r}"
        )
    return AgainstNeighbourhood(int(m))
