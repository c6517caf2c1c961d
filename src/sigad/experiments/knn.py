"""Trials of k-nearest-neighbour anomaly detection, synthetic and on tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sigad.baselines import PValues
from sigad.data import noise
from sigad.data.synthetic import draw_knn_instances
from sigad.errors import ConfigurationError
from sigad.knn.detection import Detections, detect
from sigad.knn.inference import blocks, statistic
from sigad.knn.regions import order_region, selection_region
from sigad.region import Region
from sigad.seeds import Streams
from sigad.truncated import Null, truncated_pvalue


@dataclass(frozen=True)
class KnnProblems:
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

    def __len__(self) -> int:
        return len(self.detections)

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
    def selected(self) -> NDArray[np.bool_]:
        """Whether each test instance was detected as an anomaly, (B,)."""
        return self.detections.selected

    @property
    def null(self) -> Null:
        """Distribution of the statistic without selection."""
        return ("chi", self.detections.x_test.shape[1])

    @property
    def statistic(self) -> NDArray[np.float64]:
        """Observed test statistics, (B,)."""
        return statistic(self.detections.difference, self.covariance)

    @property
    def log_hypotheses(self) -> NDArray[np.float64]:
        """log C(n, k), (B,): the sets of neighbours that could have been selected."""
        n, k = self.detections.x_train.shape[1], self.detections.k
        return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)

    @property
    def log_neighbours(self) -> NDArray[np.float64]:
        """log n, (B,): the neighbours that could have been selected; the tested hypothesis depends on no more."""
        return np.full(len(self), np.log(self.detections.x_train.shape[1]))

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


def draw_synthetic(setting: dict, streams: Sequence[Streams], *, theta: float) -> Iterator[KnnProblems]:
    """Problems of synthetic instances (kind ``knn_synthetic``).

    Parameters
    ----------
    setting : ``model``, ``clusters``, ``n``, ``d``, ``k``, ``signal``, ``metric``, ``noise``, ``distance``.
    streams : one per trial.
    theta : threshold of the anomaly score, from :func:`calibrate_threshold`.
    """
    family = (setting["noise"], float(setting["distance"]))
    for block in blocks(len(streams), setting["n"] * setting["d"]):
        instances = draw_knn_instances(
            [stream.data() for stream in streams[block]],
            model=setting["model"],
            n=setting["n"],
            d=setting["d"],
            clusters=setting["clusters"],
            signal=setting["signal"],
            family=family[0],
            distance=family[1],
        )
        detections = detect(
            instances.x_test,
            instances.x_train,
            k=parse_candidates(setting["k"]),
            theta=theta,
            metric=setting["metric"],
        )
        difference = instances.signal_difference(detections.index)
        normal = np.full(len(detections), setting["signal"] == 0)
        yield KnnProblems(detections, np.asarray(1.0), (difference == 0).all(axis=-1), normal, difference, family)


def calibrate_threshold(setting: dict, seed: int, size: int) -> float:
    """The threshold theta: a quantile of the anomaly score over held-out normal instances of the same distribution.

    Parameters
    ----------
    setting : as for :func:`draw_synthetic`, and ``quantile``. The signal does not matter.
    seed : root seed.
    size : number of held-out normal instances, each with training instances of its own.
    """
    normal = {**setting, "signal": 0.0}
    relevant = ("model", "clusters", "n", "d", "k", "metric", "noise", "distance")
    name = "_".join(f"{key}={setting[key]}" for key in relevant)
    streams = [Streams(seed, "calibrate_threshold", name, repetition) for repetition in range(size)]
    scores = [problems.detections.score for problems in draw_synthetic(normal, streams, theta=np.inf)]
    return float(np.quantile(np.concatenate(scores), setting["quantile"]))


def draw_tabular(setting: dict, streams: Sequence[Streams], *, table) -> Iterator[KnnProblems]:
    """Problems of a real table (kind ``knn_tabular``): every trial splits the normal rows anew.

    Parameters
    ----------
    setting : ``instance`` ("normal", a held-out normal row, or "anomaly"), ``n`` (at most), ``k``, ``quantile``,
        ``metric``.
    streams : one per trial.
    table : :class:`sigad.data.tabular.Table`.
    """
    from sigad.data import tabular

    candidates = parse_candidates(setting["k"])
    anomalous = setting["instance"] == "anomaly"
    for block in blocks(len(streams), setting["n"] * table.x.shape[1]):
        trials = [
            tabular.draw(
                table,
                stream.data(),
                n=setting["n"],
                candidates=candidates,
                quantile=setting["quantile"],
                anomalous=anomalous,
                metric=setting["metric"],
            )
            for stream in streams[block]
        ]
        detections = detect(
            np.stack([trial.x_test for trial in trials]),
            np.stack([trial.x_train for trial in trials]),
            k=candidates,
            theta=np.array([trial.theta for trial in trials]),
            metric=setting["metric"],
        )
        covariance = np.stack([trial.covariance for trial in trials])
        normal = np.full(len(trials), not anomalous)
        # What generated a real row is unknown: a normal test row counts as a true null hypothesis.
        yield KnnProblems(detections, covariance, normal, normal)
