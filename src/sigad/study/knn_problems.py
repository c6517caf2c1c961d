"""Problems of k-nearest-neighbour anomaly detection, wherever their instances come from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sigad.data import noise
from sigad.data.noise import NoiseFamily
from sigad.errors import ConfigurationError
from sigad.inference.estimated import EstimatedCovariance
from sigad.inference.region import Region
from sigad.inference.result import TOLERANCE, Decision, Tolerance
from sigad.inference.truncated import Null, truncated_pvalue
from sigad.knn.against import AgainstNeighbour, AgainstNeighbourhood
from sigad.knn.closed_form import order_region
from sigad.knn.covariance import CheckedCovariance, of_problems, standardised
from sigad.knn.detection import METRICS, Detections, Metric, detect
from sigad.knn.neighbourhood import members
from sigad.knn.thinning import thinned_knn_test
from sigad.seeds import Streams
from sigad.study.kinds import Kind
from sigad.study.problems import PValues
from sigad.study.settings import setting

PAPER = AgainstNeighbour()
"""Against what the paper tests: the k-th neighbour, given k."""


@dataclass(frozen=True)
class DetectedProblems:
    """What all problems of k-nearest-neighbour detection share.

    ``null_true`` (B,) whether test instance and neighbour have the same signal; ``normal`` (B,) whether the test
    instance is a normal one; ``calibration_scores`` (B, m) of held-out normal instances; ``test``: against what they
    are tested.
    """

    detections: Detections
    null_true: NDArray[np.bool_]
    normal: NDArray[np.bool_]
    calibration_scores: NDArray[np.float64]
    test: AgainstNeighbour | AgainstNeighbourhood = field(default=PAPER, kw_only=True)

    def __len__(self) -> int:
        return len(self.detections)

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Whether each test instance was detected as an anomaly, (B,)."""
        return self.detections.selected

    @property
    def score(self) -> NDArray[np.float64]:
        """Anomaly scores of the test instances, (B,)."""
        return self.detections.score

    @property
    def threshold(self) -> NDArray[np.float64]:
        """Scores above it are detected, (B,)."""
        return np.broadcast_to(self.detections.threshold, len(self))

    @property
    def null(self) -> Null:
        """Distribution of the statistic without selection: one degree of freedom per input dimension."""
        return ("chi", self.detections.x_test.shape[1])

    @property
    def log_hypotheses(self) -> NDArray[np.float64]:
        """log C(n, k), (B,): the sets of neighbours that could have been selected."""
        n, k = self.detections.x_train.shape[1], self.detections.k
        return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)

    @property
    def log_neighbours(self) -> NDArray[np.float64]:
        """log n, (B,): the neighbours that could have been selected; the tested hypothesis depends on no more."""
        return np.full(len(self), np.log(self.detections.x_train.shape[1]))

    def of_neighbourhoods(self) -> Self:
        """The same detections with hypotheses about the mean of the nearest, as many as the largest candidate."""
        return replace(self, test=AgainstNeighbourhood(self.detections.candidates[-1]))

    def _chosen(self, which: NDArray) -> dict:
        names = ("detections", "null_true", "normal", "calibration_scores")
        return {name: getattr(self, name)[which] for name in names}


@dataclass(frozen=True)
class Signals:
    """The signals of synthetic instances: ``test`` (B, d) those of the test instances, ``centres`` (B, c, d) the
    possible ones of training instances, and ``labels`` (B, n) which of them each one has."""

    test: NDArray[np.float64]
    centres: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __getitem__(self, which: NDArray) -> "Signals":
        return Signals(self.test[which], self.centres[which], self.labels[which])

    def difference(self, weights: NDArray) -> NDArray[np.float64]:
        """Signal of the test instance minus the weighted sum of those of the training instances, weights (B, n)."""
        rows = np.arange(len(self.test))[:, None]
        shares = np.zeros(self.centres.shape[:2])
        np.add.at(shares, (rows, self.labels), weights)
        return self.test - np.einsum("bc,bcd->bd", shares, self.centres)


@dataclass(frozen=True)
class KnnProblems(DetectedProblems):
    """B problems whose features are the instances themselves.

    ``covariance`` of one instance, scalar, (d, d) or (B, d, d), or estimates of it; ``held_out`` (B, m, d) normal
    instances that serve for nothing else, in random order. Of synthetic data there are as many as one wants, and
    instead ``signals``, and ``noise`` its family and distance from normal.
    """

    covariance: CheckedCovariance
    held_out: NDArray[np.float64] | None = None
    signals: Signals | None = None
    noise: tuple[NoiseFamily, float] = ("normal", 0.0)

    def __getitem__(self, which: NDArray) -> "KnnProblems":
        names = ("held_out", "signals")
        return replace(
            self,
            **self._chosen(which),
            covariance=of_problems(self.covariance, which),
            **{name: None if getattr(self, name) is None else getattr(self, name)[which] for name in names},
        )

    @property
    def x_test(self) -> NDArray[np.float64]:
        """Test instances, (B, d)."""
        return self.detections.x_test

    @property
    def x_train(self) -> NDArray[np.float64]:
        """Training instances, (B, n, d)."""
        return self.detections.x_train

    @property
    def statistic(self) -> NDArray[np.float64]:
        """Observed test statistics, (B,)."""
        return self._standardised()[0]

    @property
    def null(self) -> Null:
        """Distribution of the statistic without selection."""
        return self._standardised()[1]

    def of_neighbourhoods(self) -> Self:
        """The same detections with hypotheses about the mean of the nearest, and which of these are true."""
        problems = super().of_neighbourhoods()
        if self.signals is None:
            return problems
        m = self.detections.candidates[-1]
        difference = self.signals.difference(members(self.detections, m) / m)
        # A mean of equal signals is rounded.
        return replace(problems, null_true=(np.abs(difference) <= 1e-9).all(axis=-1))

    def plugged_in(self) -> Self:
        """The same hypotheses, with the estimate of the covariance taken for the truth."""
        return replace(self, covariance=self._known_covariance())

    def selective(self, *, condition_on_k: bool = True, tolerance: Tolerance | Decision = TOLERANCE) -> PValues:
        """The selective test (Niihori et al. 2025, Theorem 4.1), or that against the neighbourhood, in closed form."""
        test = self.test if condition_on_k else AgainstNeighbour(condition_on_k=False)
        return self._truncated(test.region(self.detections))

    def over_conditioned(self) -> PValues:
        """The selective test without parametric programming."""
        return self._truncated(order_region(self.detections))

    def fresh_statistic(self, streams: Sequence[Streams]) -> NDArray[np.float64]:
        """The statistic of replicates of the selected pairs: the same signals with new noise, (B,)."""
        test, neighbour = np.stack(
            [noise.sample(stream.method(), *self.noise, (2, self.x_test.shape[1])) for stream in streams], axis=1
        )
        assert self.signals is not None and isinstance(self.covariance, np.ndarray), "offered for synthetic data only"
        selected = np.arange(self.x_train.shape[1]) == self.detections.index[:, None]
        difference = self.signals.difference(selected) + (test - neighbour)
        return np.sqrt((np.square(difference) / (2 * self.covariance)).sum(axis=-1))

    def _standardised(self) -> tuple[NDArray[np.float64], Null]:
        return standardised(self.test.difference(self.detections), self.covariance, self.test.factor)

    def normals(self, streams: Sequence[Streams], count: int) -> Iterator["KnnProblems"]:
        """The problems of further normal instances with the same training instances and threshold."""
        for b, stream in enumerate(streams):
            x = self._further(b, stream, count)
            found = self.detections
            detections = detect(
                x, found.x_train[b], k=found.candidates, threshold=float(found.threshold[b]), metric=found.metric
            )
            normal = np.ones(len(x), bool)
            scores = np.broadcast_to(self.calibration_scores[b], (len(x), self.calibration_scores.shape[1]))
            yield KnnProblems(detections, normal, normal, scores, of_problems(self.covariance, b), test=self.test)

    def thinned(self, streams: Sequence[Streams], tau: float) -> PValues:
        """The test by Gaussian thinning, which needs a covariance: an estimate is taken for the truth."""
        covariance = self._known_covariance()
        found, raised = self.detections, self.threshold + np.log1p(tau**2) / 2
        results = [
            thinned_knn_test(
                found.x_test[b],
                found.x_train[b],
                k=found.candidates,
                threshold=float(raised[b]),
                covariance=covariance[b] if covariance.ndim == 3 else covariance,
                tau=tau,
                rng=stream.method(),
                metric=found.metric,
            )
            for b, stream in enumerate(streams)
        ]
        return PValues.of(results)

    def _known_covariance(self) -> NDArray[np.float64]:
        """The covariance; an estimate is taken for the truth."""
        if isinstance(self.covariance, np.ndarray):
            return self.covariance
        assert isinstance(self.covariance, EstimatedCovariance), "no kind estimates no more than a scale"
        return self.covariance.matrix

    def _further(self, b: int, stream: Streams, count: int) -> NDArray[np.float64]:
        """Normal instances (m, d) of one problem that serve for nothing else."""
        if self.held_out is not None:
            return self.held_out[b, :count]
        assert self.signals is not None, "of synthetic data there are as many as one wants, of others some are held out"
        rng, centres = stream.normals(), self.signals.centres[b]
        return centres[rng.integers(len(centres), size=count)] + noise.sample(
            rng, *self.noise, (count, centres.shape[1])
        )

    def _truncated(self, region: Region) -> PValues:
        t, null = self._standardised()
        # Identity features are one linear piece.
        return PValues.exact(truncated_pvalue(t, region * t[:, None, None], null=null), 1)


@dataclass(frozen=True)
class KnnKind(Kind):
    """Settings that all kinds of k-nearest-neighbour experiments share."""

    n: int = setting(100, "training instances, fewer if there are not as many", low=1)
    k: int | str = setting(
        "1-10",
        "neighbours: a number, or candidates of which the best-scoring is taken (data-driven)",
        low=1,
        pattern=r"[1-9][0-9]*(-[1-9][0-9]*)?",
    )
    quantile: float = setting(
        0.9, "level of the threshold: quantile of the score over held-out normal instances", above=0, below=1
    )
    metric: Metric = setting("l2", "distance between features", choices=METRICS, source="paper")

    @property
    def candidates(self) -> tuple[int, ...]:
        """Numbers of neighbours: ``5`` is fixed, ``"1-10"`` are candidates 1, ..., 10."""
        first, _, last = str(self.k).partition("-")
        return tuple(range(int(first), int(last or first) + 1))

    def check(self) -> None:
        if not self.candidates:
            raise ConfigurationError(f'k must be a number such as 5, or a range such as "1-10", not {self.k!r}')
