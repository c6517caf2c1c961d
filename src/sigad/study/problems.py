"""What methods may ask of the hypotheses that a detector selected, whatever the detector.

A *capability* is something that the problems of some kinds of experiments have and those of others have not. A kind
says what it offers, a method what it needs; neither names the other.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sigad.inference.result import TOLERANCE, Decision, Tolerance
from sigad.inference.truncated import Null
from sigad.seeds import Streams

if TYPE_CHECKING:  # it needs torch, and methods that look at no line do not
    from sigad.inference.hypothesis import Hypothesis


class PValues(NamedTuple):
    """P-values of B hypotheses, bounds on them (equal where they are exact), and evaluations of the detector, (B,)."""

    p_value: NDArray[np.float64]
    p_low: NDArray[np.float64]
    p_high: NDArray[np.float64]
    n_evaluations: NDArray[np.int64]

    @classmethod
    def exact(cls, p_value: NDArray[np.float64], n_evaluations: NDArray[np.int64] | int = 0) -> "PValues":
        """P-values that need no bounds."""
        return cls(p_value, p_value, p_value, np.broadcast_to(np.asarray(n_evaluations, np.int64), p_value.shape))

    @classmethod
    def of(cls, results: Sequence[Any]) -> "PValues":
        """The p-values of results of an engine, which have the same fields."""
        return cls(*[np.array([getattr(result, name) for result in results]) for name in cls._fields])


class Problems(Protocol):
    """What every method may ask of a batch of B hypotheses, whichever detector selected them."""

    @property
    def null(self) -> Null:
        """Law of the statistic without selection."""
        ...

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Whether the detector selected the hypothesis, (B,); if not there is nothing to test."""
        ...

    @property
    def null_true(self) -> NDArray[np.bool_]:
        """Whether the selected hypothesis is true, (B,)."""
        ...

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Whether the instance under test is a normal one, (B,)."""
        ...

    @property
    def statistic(self) -> NDArray[np.float64]:
        """Observed test statistics, (B,)."""
        ...

    @property
    def log_hypotheses(self) -> NDArray[np.float64]:
        """Log of the number of hypotheses from which the selection was made, (B,)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: NDArray) -> Self: ...


class Regions(Problems, Protocol):
    """Problems whose truncation region can be computed, for the detector is piecewise linear along the line."""

    def selective(self, *, tolerance: Tolerance | Decision = TOLERANCE) -> PValues:
        """The selective test: conditions on the selection and on nothing more; ``tolerance`` where it searches."""
        ...

    def over_conditioned(self) -> PValues:
        """The selective test without parametric programming: one interval around the observation."""
        ...


class Evaluated(Problems, Protocol):
    """Problems whose detector can be run on the data anywhere on the line, whatever it is."""

    def hypotheses(self) -> "Sequence[Hypothesis]":
        """What is tested, for engines that only run the detector."""
        ...


class Neighbours(Problems, Protocol):
    """Problems whose hypothesis is a neighbour of the instance under test."""

    @property
    def log_neighbours(self) -> NDArray[np.float64]:
        """Log of the number of neighbours that could have been selected, (B,)."""
        ...

    def selective(self, *, condition_on_k: bool = True, tolerance: Tolerance | Decision = TOLERANCE) -> PValues:
        """That of :class:`Regions`, with or without the selected k as a part of the selection."""
        ...


class Neighbourhoods(Problems, Protocol):
    """Problems that can be about the mean of the nearest neighbours instead of one of them."""

    def of_neighbourhoods(self) -> Regions:
        """The same detections with the hypotheses: the test instance's signal is the mean of those of its nearest."""
        ...


class EstimatedCovariances(Regions, Protocol):
    """Problems whose covariance is estimated."""

    def plugged_in(self) -> Self:
        """The same hypotheses, with the estimate taken for the truth."""
        ...


class EstimatedNeighbourhoods(Neighbourhoods, EstimatedCovariances, Protocol):
    """Both."""


class Instances(Problems, Protocol):
    """Problems whose instances are vectors of fewer dimensions than there are training instances."""

    @property
    def x_test(self) -> NDArray[np.float64]:
        """Instances under test, (B, d)."""
        ...

    @property
    def x_train(self) -> NDArray[np.float64]:
        """Training instances, (B, n, d)."""
        ...


class FreshPairs(Problems, Protocol):
    """Problems of synthetic data, which can be drawn anew with the same signals."""

    def fresh_statistic(self, streams: Sequence[Streams]) -> NDArray[np.float64]:
        """The statistics of replicates of the selected pairs with new noise, (B,)."""
        ...


class NetworkPieces(Problems, Protocol):
    """Problems whose detector sees the features of a network."""

    def piece_only(self) -> PValues:
        """The test that conditions on the network's linear piece and on no event of the neighbours."""
        ...

    def neighbours_only(self) -> PValues:
        """The test that conditions on the neighbours' events for the network linearised at the observation."""
        ...


class Pixels(Regions, Evaluated, Protocol):
    """Problems whose hypothesis is a set of pixels."""

    def permuted(self, streams: Sequence[Streams], permutations: int) -> PValues:
        """The test that deals out the pixels of test and reference image anew."""
        ...

    def at_resolution(self, size: int) -> "Pixels":
        """The same detections with the hypotheses about all blocks of size x size pixels that hold a marked one."""
        ...


class Normals(Regions, Protocol):
    """Problems for which there are normal instances that serve for nothing else, not even the threshold."""

    @property
    def score(self) -> NDArray[np.float64]:
        """How anomalous the instances under test are, (B,); NaN where it is only known for what was detected."""
        ...

    def normals(self, streams: Sequence[Streams], count: int) -> Iterator["Normals"]:
        """For each of the B problems, the problems of further normal instances, ``count`` of them or all there are,
        given to the same detector: exchangeable with a normal instance under test."""
        ...


class Thinnable(Problems, Protocol):
    """Problems whose noise has a covariance that noise can be drawn from."""

    def thinned(self, streams: Sequence[Streams], tau: float) -> PValues:
        """The test by Gaussian thinning, NaN where the detector finds nothing in the noisier data. The threshold is
        raised as the noise of what the detector sees."""
        ...


class ScoresOfNormals(Problems, Protocol):
    """Problems with the anomaly scores of normal instances that serve for nothing but the threshold."""

    @property
    def score(self) -> NDArray[np.float64]:
        """Anomaly scores under test, (B,)."""
        ...

    @property
    def threshold(self) -> NDArray[np.float64]:
        """Scores above it are detected, (B,)."""
        ...

    @property
    def calibration_scores(self) -> NDArray[np.float64]:
        """Scores of held-out normal instances, (B, m)."""
        ...


CAPABILITIES: dict[str, type] = {
    "regions": Regions,
    "neighbours": Neighbours,
    "neighbourhoods": Neighbourhoods,
    "estimated_covariances": EstimatedCovariances,
    "instances": Instances,
    "fresh_pairs": FreshPairs,
    "network_pieces": NetworkPieces,
    "pixels": Pixels,
    "scores_of_normals": ScoresOfNormals,
    "normals": Normals,
    "thinning": Thinnable,
    "evaluations": Evaluated,
}
