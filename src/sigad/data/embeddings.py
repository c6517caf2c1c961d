"""Embeddings of the patches of a set of images: features of a network that are data themselves, computed once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigad.data.images import ImageSet
from sigad.data.sealed import check_folder, seal_folder
from sigad.data.table import Table
from sigad.errors import InvalidInputError, MissingDataError


@dataclass(frozen=True)
class Embeddings:
    """The patches that N images have at each position, as vectors of D features.

    Attributes
    ----------
    name : what the set of images is called.
    values : (rows, columns, N, D) float32; mapped from a file, so that only what is looked at is read.
    normal : (N,) bool, False for images with a defect somewhere.
    anomalous : (rows, columns, N) bool, whether the patch is an anomaly.
    """

    name: str
    values: NDArray[np.float32]
    normal: NDArray[np.bool_]
    anomalous: NDArray[np.bool_]

    @classmethod
    def of(cls, images: ImageSet, network: Callable[[NDArray[np.float64]], NDArray]) -> "Embeddings":
        """Of all patches of all images; ``network`` from patches (m, C, p, p) to features (m, D)."""
        rows, columns = images.grid
        everything = np.arange(len(images))
        features = [
            network(images.patches(everything, (row, column))).astype(np.float32)
            for row in range(rows)
            for column in range(columns)
        ]
        anomalous = np.zeros((rows, columns, len(images)), bool)
        image, row, column = images.anomalies().T
        anomalous[row, column, image] = True
        return cls(images.name, np.stack(features).reshape(rows, columns, len(images), -1), images.normal, anomalous)

    def position(self, rng: np.random.Generator, *, anomalous: bool) -> tuple[int, int]:
        """A position (row, column) at random: any, or that of an anomaly, each anomaly being as likely."""
        if not anomalous:
            row, column = (rng.integers(size) for size in self.values.shape[:2])
            return int(row), int(column)
        anomalies = np.argwhere(self.anomalous)
        if not len(anomalies):
            raise InvalidInputError(f"the image set {self.name!r} has no defective patches")
        row, column, _ = anomalies[rng.integers(len(anomalies))]
        return int(row), int(column)

    def table(self, position: tuple[int, int]) -> Table:
        """The patches of normal images and the anomalies at a position, a row each."""
        kept = np.flatnonzero(self.normal | self.anomalous[position])
        x = np.asarray(self.values[position])[kept].astype(np.float64)
        return Table(self.name, x, self.normal[kept], tuple(f"feature {i}" for i in range(x.shape[1])))

    def save(self, folder: str | Path) -> None:
        """Write to a folder that notices damage (:mod:`sigad.data.sealed`)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "values.npy", self.values)
        np.savez(folder / "facts.npz", name=self.name, normal=self.normal, anomalous=self.anomalous)
        seal_folder(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Embeddings":
        """Read what :meth:`save` wrote; MissingDataError or InvalidInputError if it is not there or damaged."""
        folder = Path(folder)
        if not folder.is_dir():
            raise MissingDataError(f"there is no folder {folder}: run the rule that embeds the images first")
        check_folder(folder)
        with np.load(folder / "facts.npz") as facts:
            given = {name: facts[name] for name in ("normal", "anomalous")}
            name = str(facts["name"])
        return cls(name, np.load(folder / "values.npy", mmap_mode="r"), **given)
