"""Problems of k-nearest-neighbour anomaly detection, wherever their instances come from."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sigad.data import noise
from sigad.errors import ConfigurationError
from sigad.inference.region import Region
from sigad.inference.truncated import Null, truncated_pvalue
from sigad.knn.closed_form import order_region, selection_region
from sigad.knn.detection import METRICS, Detections
from sigad.knn.neighbour import statistic
from sigad.study.methods import PValues


class DetectedProblems:
    """What all problems of k-nearest-neighbour detection share; a child has the field ``detections``."""

    detections: Detections

    def __len__(self) -> int:
        return len(self.detections)

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Whether each test instance was detected as an anomaly, (B,)."""
        return self.detections.selected

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


@dataclass(frozen=True)
class KnnProblems(DetectedProblems):
    """B problems with what was detected, and what is known about the truth.

    ``covariance`` of one instance, scalar or (B, d, d); ``null_true`` (B,) whether test instance and neighbour have the
    same signal; ``normal`` (B,) whether the test instance is a normal one. For synthetic data, ``signal_difference``
    (B, d), and ``noise`` its family and distance from normal.
    """

    detections: Detections
    covariance: NDArray[np.float64]
    null_true: NDArray[np.bool_]
    normal: NDArray[np.bool_]
    signal_difference: NDArray[np.float64] | None = None
    noise: tuple[str, float] = ("normal", 0.0)

    def __getitem__(self, which: NDArray) -> "KnnProblems":
        return replace(
            self,
            detections=self.detections[which],
            covariance=self.covariance[which] if self.covariance.ndim == 3 else self.covariance,
            null_true=self.null_true[which],
            normal=self.normal[which],
            signal_difference=None if self.signal_difference is None else self.signal_difference[which],
        )

    @property
    def statistic(self) -> NDArray[np.float64]:
        """Observed test statistics, (B,)."""
        return statistic(self.detections.difference, self.covariance)

    def selective(self, *, condition_on_k: bool = True) -> PValues:
        """The selective test (Niihori et al. 2025, Theorem 4.1)."""
        return self._truncated(selection_region(self.detections, condition_on_k=condition_on_k))

    def over_conditioned(self) -> PValues:
        """The selective test without parametric programming."""
        return self._truncated(order_region(self.detections))

    def draw_difference(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Fresh noise of a test instance minus fresh noise of a neighbour, (d,)."""
        test, neighbour = noise.sample(rng, *self.noise, (2, self.detections.x_test.shape[1]))
        return test - neighbour

    def _truncated(self, region: Region) -> PValues:
        t = self.statistic
        # Identity features are one linear piece.
        return PValues.exact(truncated_pvalue(t, region * t[:, None, None], null=self.null), 1)


def parse_candidates(text: str | int) -> tuple[int, ...]:
    """Numbers of neighbours from a setting: ``5`` is fixed, ``"1-10"`` are candidates 1, ..., 10 (data-driven k)."""
    first, dash, last = str(text).partition("-")
    try:
        candidates = tuple(range(int(first), int(last) + 1)) if dash else (int(first),)
    except ValueError:
        candidates = ()
    if not candidates or candidates[0] < 1:
        raise ConfigurationError(f'k must be a positive number such as 5, or a range such as "1-10", not {text!r}')
    return candidates


def check_knn_setting(setting: dict) -> tuple[int, ...]:
    """Check what all kinds of k-nearest-neighbour experiments have in common; the candidates of k."""
    candidates = parse_candidates(setting["k"])
    if setting["metric"] not in METRICS:
        raise ConfigurationError(f"metric must be one of {', '.join(METRICS)}, not {setting['metric']!r}")
    if not 0 < setting["quantile"] < 1:
        raise ConfigurationError(f"quantile must lie between 0 and 1, not {setting['quantile']!r}")
    return candidates
