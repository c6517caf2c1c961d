"""The kind ``knn_synthetic``: k-nearest-neighbour anomaly detection on synthetic instances."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigad.data import noise
from sigad.data.noise import NoiseFamily
from sigad.data.synthetic import MODELS, draw_knn_instances
from sigad.errors import ConfigurationError
from sigad.knn.detection import blocks, detect
from sigad.seeds import Streams
from sigad.study.calibration import read_scores
from sigad.study.kinds import Block, Cost
from sigad.study.knn_problems import KnnKind, KnnProblems, Signals
from sigad.study.settings import setting


@dataclass(frozen=True)
class KnnSynthetic(KnnKind):
    """Instances N(0, I), or from clusters of these; the threshold is estimated beforehand on instances of its own."""

    offers = frozenset(
        {
            "regions",
            "neighbours",
            "neighbourhoods",
            "instances",
            "fresh_pairs",
            "scores_of_normals",
            "normals",
            "thinning",
        }
    )
    calibrated = True

    model: str = setting(
        "parametric",
        "parametric: all instances N(0, I); clusters (semi-parametric): N(mean of the instance's cluster, I)",
        choices=MODELS,
        source="paper",
    )
    clusters: int = setting(3, "number of clusters, with means N(0, 4² I)", low=1)
    d: int = setting(10, "dimension", low=1)
    signal: float = setting(0, "added to one random coordinate of the test instance", source="paper; values chosen")
    noise: NoiseFamily = setting("normal", "family of the noise", choices=noise.FAMILIES, source="paper")
    distance: float = setting(
        0, "1-Wasserstein distance of the noise from N(0, 1)", low=0, source="paper; values chosen"
    )

    def check(self) -> None:
        super().check()
        if self.candidates[-1] > self.n:
            raise ConfigurationError(f"k = {self.k} needs at least as many training instances, but n = {self.n}")
        if self.distance != 0:
            noise.check_distance(self.noise, float(self.distance))

    def inputs(self, experiment: str) -> dict[str, str]:
        return {"calibration": f"calibration/{experiment}.parquet"}

    def load(self, files: Mapping[str, Path]) -> dict[str, Any]:
        return {"scores": read_scores(files["calibration"], self.distribution)}

    def draw(self, streams: Sequence[Streams], *, scores: NDArray[np.float64]) -> Iterator[Block]:
        """Problems of synthetic instances; ``scores`` (m,) of held-out normal ones, from :meth:`calibrate`."""
        threshold = float(np.quantile(scores, self.quantile))
        family = (self.noise, float(self.distance))
        for block, detections, instances in self._detect(streams, threshold):
            signals = Signals(instances.signal_test, instances.centres, instances.labels)
            difference = instances.signal_difference(detections.index)
            yield (
                streams[block],
                KnnProblems(
                    detections=detections,
                    null_true=(difference == 0).all(axis=-1),
                    normal=np.full(len(detections), self.signal == 0),
                    calibration_scores=np.broadcast_to(scores, (len(detections), len(scores))),
                    covariance=np.asarray(1.0),
                    signals=signals,
                    noise=family,
                ),
            )

    def calibrate(self, seed: int, size: int) -> NDArray[np.float64]:
        """Scores of normal instances, each with training instances of its own. The signal does not matter."""
        streams = [Streams(seed, "calibrate_threshold", self.distribution, repetition) for repetition in range(size)]
        found = replace(self, signal=0)._detect(streams, np.inf)
        return np.concatenate([detections.score for _, detections, _ in found])

    @property
    def distribution(self) -> str:
        relevant = ("model", "clusters", "n", "d", "k", "metric", "noise", "distance")
        return "_".join(f"{key}={getattr(self, key)}" for key in relevant)

    def cost(self) -> Cost:
        # A problem fills arrays of n d numbers; each of the candidates k sorts n roots.
        numbers, selected = self.n * self.d, 1.0 if self.signal else 1 - self.quantile
        draw = 45e-6 + 33e-9 * numbers
        region = selected * (15e-6 + 15e-9 * numbers + len(self.candidates) * (1.5e-6 + 9e-9 * self.n))
        return Cost(draw=draw, evaluation=draw, piece=region, search=region, memory=1500)

    def _detect(self, streams: Sequence[Streams], threshold: float) -> Iterator[tuple]:
        for block in blocks(len(streams), self.n * self.d):
            instances = draw_knn_instances(
                [stream.data() for stream in streams[block]],
                model=self.model,
                n=self.n,
                d=self.d,
                clusters=self.clusters,
                signal=self.signal,
                family=self.noise,
                distance=float(self.distance),
            )
            found = detect(
                instances.x_test, instances.x_train, k=self.candidates, threshold=threshold, metric=self.metric
            )
            yield block, found, instances
