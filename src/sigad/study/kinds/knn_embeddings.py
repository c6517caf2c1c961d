"""The kind ``knn_embeddings``: k-nearest-neighbour anomaly detection of image patches in the space of features.

The features of a network are the data themselves, a few principal components of them (:mod:`sigad.study.knn_rows`), so
that tests are closed forms and the noise is assumed of these. Where it is assumed of pixels, and the network is a part
of the detector, is the kind ``knn_images``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sigad.data.embeddings import Embeddings
from sigad.data.table import Table
from sigad.knn.detection import blocks
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost
from sigad.study.knn_rows import KnnRows
from sigad.study.patches import require_patches
from sigad.study.settings import setting


@dataclass(frozen=True)
class KnnEmbeddings(KnnRows):
    """Embeddings of patches of images at one position (space: features); every trial draws a position and splits the
    normal images anew."""

    dataset: str = setting("transistor", "name of the image set in `images`, config/datasets.yaml", source="paper")
    features: str = setting("resnet18", "name of the network in `features`", source="paper")

    def require(self, config: Mapping[str, Any]) -> None:
        require_patches(self.dataset, self.features, config)

    def inputs(self, experiment: str) -> dict[str, str]:
        return {"embeddings": f"embeddings/{self.dataset}/{self.features}"}

    def load(self, files: Mapping[str, Path]) -> dict[str, Any]:
        return {"embeddings": Embeddings.load(files["embeddings"])}

    def rows(self, rng: np.random.Generator, given: Mapping[str, Any]) -> Table:
        embeddings = given["embeddings"]
        return embeddings.table(embeddings.position(rng, anomalous=self.anomalous))

    def draw(self, streams: Sequence[Streams], *, embeddings: Embeddings) -> Iterator[Block]:
        """Problems of embeddings of patches."""
        # A trial has half as many components as a fifth of the normal patches, at most.
        for block in blocks(len(streams), self.n * (len(embeddings.normal) // 10)):
            trials = [self.trial(stream.data(), {"embeddings": embeddings}) for stream in streams[block]]
            yield from self.tested(streams[block], trials)

    def cost(self) -> Cost:
        # Drawing fits a transform of each feature: 32 or 64 of what needs no download, 512 of a ResNet-18, for which
        # others are taken.
        return self.cost_of(draw=0.01 if self.features in ("small_cnn", "thumbnail") else 0.04)
