"""The kind ``knn_images``: k-nearest-neighbour anomaly detection of image patches in the features of a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sigad.data.images import ImageSet, split
from sigad.data.patch_noise import NOISE_KINDS, Noise, estimate
from sigad.errors import ConfigurationError, InvalidInputError
from sigad.inference.region import Region
from sigad.inference.truncated import truncated_pvalue
from sigad.knn.detection import Detections, Metric, detect_features, scores
from sigad.study.knn_problems import DetectedProblems, check_knn_setting, parse_candidates
from sigad.study.methods import PValues
from sigad.study.seeds import Streams

INSTANCES = ("normal", "anomaly", "gaussian")

# A score in single precision that is this far below the threshold is below it in double precision.
_MARGIN = 1e-3


@dataclass(frozen=True)
class KnnImageProblems(DetectedProblems):
    """Patches of B trials with what was detected, and what is known about the truth.

    ``statistic`` (B,); ``shape`` (C, H, W) of a patch; ``features`` the network
    (:class:`~sigad.knn.network.NetworkFeatures`); ``null_true`` and ``normal`` (B,) as in
    :class:`sigad.study.methods.Problems`.
    """

    detections: Detections
    statistic: NDArray[np.float64]
    shape: tuple[int, int, int]
    features: object
    null_true: NDArray[np.bool_]
    normal: NDArray[np.bool_]

    def __getitem__(self, which: NDArray) -> "KnnImageProblems":
        return replace(
            self,
            detections=self.detections[which],
            statistic=self.statistic[which],
            null_true=self.null_true[which],
            normal=self.normal[which],
        )

    def hypotheses(self, *, condition_on_k: bool = True) -> list:
        """The hypothesis of each problem (:class:`sigad.knn.network.NeighbourHypothesis`)."""
        from sigad.knn.network import NeighbourHypothesis

        return [
            NeighbourHypothesis.of(
                self.features, self.detections, b, float(t), self.shape, condition_on_k=condition_on_k
            )
            for b, t in enumerate(self.statistic)
        ]

    def selective(self, *, condition_on_k: bool = True) -> PValues:
        """The selective test (Niihori et al. 2025, Theorem 4.1): the network and the neighbours' events."""
        from sigad.inference.exact import exact

        found = [exact(hypothesis) for hypothesis in self.hypotheses(condition_on_k=condition_on_k)]
        columns = ("p_value", "p_low", "p_high", "n_evaluations")
        return PValues(*[np.array([getattr(result, name) for result in found]) for name in columns])

    def over_conditioned(self) -> PValues:
        """w/o-pp: the network's linear piece and the order of the nearest instances, one interval."""
        return self._truncated([hypothesis.order_region() for hypothesis in self.hypotheses()])

    def piece_only(self) -> PValues:
        """OpA1: the network's linear piece, and no event of the neighbours."""
        return self._truncated([hypothesis.piece_region() for hypothesis in self.hypotheses()])

    def neighbours_only(self) -> PValues:
        """OpA2: the events of the neighbours, for the network linearised at the observation."""
        return self._truncated([hypothesis.linearised_region() for hypothesis in self.hypotheses()])

    def _truncated(self, regions: list[Region]) -> PValues:
        p = [truncated_pvalue(t, r, null=self.null) for t, r in zip(self.statistic, regions, strict=True)]
        return PValues.exact(np.array(p, np.float64).reshape(-1), 1)


def check(setting: dict) -> None:
    """Raise ConfigurationError for a setting that cannot be computed."""
    candidates = check_knn_setting(setting)
    if candidates[-1] > setting["n"]:
        raise ConfigurationError(f"k = {setting['k']} needs at least as many training patches, but n = {setting['n']}")
    if setting["instance"] not in INSTANCES:
        raise ConfigurationError(f"instance must be one of {', '.join(INSTANCES)}, not {setting['instance']!r}")
    if setting["covariance"] not in NOISE_KINDS:
        raise ConfigurationError(f"covariance must be one of {', '.join(NOISE_KINDS)}, not {setting['covariance']!r}")


def draw(setting: dict, streams: Sequence[Streams], *, images: ImageSet, features) -> Iterator[KnnImageProblems]:
    """Problems of image patches, one at a time: every trial splits the normal images anew and draws a position.

    Parameters
    ----------
    setting : ``instance`` ("normal", a patch of a held-out normal image; "anomaly", a defective patch; "gaussian", all
        patches drawn from the estimated noise model), ``n``, ``k``, ``quantile``, ``metric``, ``covariance``.
    streams : one per trial.
    images : :class:`sigad.data.images.ImageSet`.
    features : a torch module or :class:`sigad.knn.network.NetworkFeatures`.
    """
    from sigad.knn.network import NetworkFeatures

    network = features if isinstance(features, NetworkFeatures) else NetworkFeatures(features)
    candidates = parse_candidates(setting["k"])
    for stream in streams:
        rng = stream.data()
        trial = draw_trial(images, rng, n=setting["n"], instance=setting["instance"], covariance=setting["covariance"])
        if len(trial.x_train) < candidates[-1]:
            raise InvalidInputError(
                f"the image set {images.name!r} allows {len(trial.x_train)} training patches, fewer than "
                f"k = {candidates[-1]}"
            )
        threshold = calibrated_threshold(
            network.approximate(trial.estimation),
            candidates,
            setting["quantile"],
            n=len(trial.x_train),
            metric=setting["metric"],
        )
        detections = detect_patch(network, trial.x_test, trial.x_train, candidates, threshold, setting["metric"])
        normal = np.array([setting["instance"] != "anomaly"])
        # What generated a real patch is unknown: one of a normal image counts as a true null hypothesis.
        yield KnnImageProblems(
            detections, trial.noise.statistic(detections.difference), trial.x_test.shape, network, normal, normal
        )


@dataclass(frozen=True)
class Trial:
    """Patches of one position: (C, H, W) under test, (n, C, H, W) for training, (m, C, H, W) for estimation; the noise
    estimated on the last; and the number of the tested image with its position (row, column)."""

    x_test: NDArray[np.float64]
    x_train: NDArray[np.float64]
    estimation: NDArray[np.float64]
    noise: Noise
    image: int
    position: tuple[int, int]


def draw_trial(images: ImageSet, rng: np.random.Generator, *, n: int, instance: str, covariance: str) -> Trial:
    """Draw the patches of one trial; raises InvalidInputError if there are no anomalies although one is asked for."""
    parts = split(images, rng, n)
    if instance == "anomaly":
        anomalies = images.anomalies()
        if not len(anomalies):
            raise InvalidInputError(f"the image set {images.name!r} has no defective patches")
        image, *position = map(int, anomalies[rng.integers(len(anomalies))])
    else:
        image = int(rng.choice(parts.testing))
        position = [int(rng.integers(size)) for size in images.grid]
    at = lambda which: images.patches(which, tuple(position))  # noqa: E731
    x_test, x_train, estimation = at([image])[0], at(parts.pool), at(parts.estimation)
    noise = estimate(estimation.reshape(len(estimation), -1), covariance)
    if instance == "gaussian":
        fresh = lambda m: noise.sample(rng, m).reshape(m, *x_test.shape)  # noqa: E731
        x_test, x_train, estimation = fresh(1)[0], fresh(len(x_train)), fresh(len(estimation))
    return Trial(x_test, x_train, estimation, noise, image, tuple(position))


def calibrated_threshold(
    features: NDArray, candidates: Sequence[int], quantile: float, *, n: int, metric: Metric = "l2"
) -> float:
    """A quantile of the scores that normal instances (m, D) obtain against n others of them (all, if there are fewer).

    As many as there are training instances: the score of a neighbour of given rank falls with their number.
    """
    from scipy.spatial.distance import cdist

    distances = cdist(features, features, {"l2": "euclidean", "l1": "cityblock", "linf": "chebyshev"}[metric])
    m = len(features)
    # In random order already: those that follow, in a circle.
    others = np.take_along_axis(distances, (np.arange(m)[:, None] + np.arange(1, min(n, m - 1) + 1)) % m, axis=1)
    if others.shape[1] < candidates[-1]:
        raise InvalidInputError(f"{len(features)} instances are too few for a threshold with k = {candidates[-1]}")
    best = scores(others, candidates, features.shape[1]).max(axis=-1)
    return float(np.quantile(best, quantile, method="higher"))


def detect_patch(
    network, x_test: NDArray, x_train: NDArray, candidates: Sequence[int], threshold: float, metric: Metric
) -> Detections:
    """Run the detector on one patch: in single precision, and where that does not reject it clearly in double."""

    def run(features) -> Detections:
        f = features(np.concatenate([x_test[None], x_train]))
        flat = x_train.reshape(1, len(x_train), -1)
        return detect_features(
            x_test.reshape(1, -1), flat, f[:1], f[None, 1:], k=candidates, threshold=threshold, metric=metric
        )

    found = run(network.approximate)
    return run(network) if found.score[0] > threshold - _MARGIN else found
