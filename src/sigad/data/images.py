"""Sets of images, and their patches as instances.

Every image of a set is cut into square patches at the same positions; the instances of one position are the patches
that the images have there. Source: Niihori et al. (NeurIPS 2025), section 5.4.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.data.sealed import damaged, sha256
from sigad.errors import InvalidInputError, MissingDataError

DEFECTIVE = 0.25
"""Share of defective pixels from which on a patch of an anomalous image counts as an anomaly (chosen)."""

TEXTURES = ("brick", "grass", "gravel")
_TRAINING_ROWS = 128
_DEFECT_EVERY = 6


@dataclass(frozen=True)
class ImageSet:
    """N images of one size.

    Attributes
    ----------
    name : what the set is called.
    images : (N, C, H, W) uint8; mapped from a file, so that only what is looked at is read.
    normal : (N,) bool, False for images with a defect somewhere.
    defect : (N, rows, columns) share of defective pixels of each patch.
    patch : side of a patch in pixels.
    names : what each image is called.
    columns : for images cut from a single picture, row by row, how many make a row of it; None for separate images.
    """

    name: str
    images: NDArray[np.uint8]
    normal: NDArray[np.bool_]
    defect: NDArray[np.float32]
    patch: int
    names: tuple[str, ...]
    columns: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.images.shape[2] // self.patch, self.images.shape[3] // self.patch

    def patches(self, which: Sequence[int] | NDArray, position: tuple[int, int]) -> NDArray[np.float64]:
        """The patches (m, C, patch, patch) of the images numbered ``which`` at a position (row, column)."""
        row, column = (p * self.patch for p in position)
        which = np.asarray(which)
        order = np.argsort(which)  # a file is read faster in order
        result = np.empty((len(which), self.images.shape[1], self.patch, self.patch))
        for i in order:
            result[i] = self.images[which[i], :, row : row + self.patch, column : column + self.patch]
        return result

    def anomalies(self) -> NDArray[np.int64]:
        """(image, row, column) of every patch that is an anomaly, (m, 3)."""
        return np.argwhere(self.defect >= DEFECTIVE)

    def save(self, images: str | Path, facts: str | Path) -> None:
        """Write the images (.npy), and everything else with their checksum (.json)."""
        np.save(images, self.images)
        defects = np.argwhere(self.defect > 0)
        content = {
            "name": self.name,
            "patch": self.patch,
            "normal": self.normal.tolist(),
            "names": list(self.names),
            "columns": self.columns,
            "checksum": sha256(images),
            "defects": [[*map(int, at), round(float(self.defect[tuple(at)]), 4)] for at in defects],
        }
        Path(facts).write_text(json.dumps(content) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, images: str | Path, facts: str | Path) -> "ImageSet":
        """Read what :meth:`save` wrote; the images stay on disk.

        Raises MissingDataError or InvalidInputError if a file is not there, damaged, or one of another set.
        """
        for path in (images, facts):
            if not Path(path).is_file():
                raise MissingDataError(f"there is no file {path}: run the rule that prepares the images first")
        try:
            content = json.loads(Path(facts).read_text(encoding="utf-8"))
            checksum, patch = content["checksum"], content["patch"]
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(facts, "cannot be read as one that sigad wrote") from error
        if sha256(images) != checksum:
            raise damaged(images, f"was altered after it was written, or does not belong to {facts}")
        stack = np.load(images, mmap_mode="r")
        defect = np.zeros((len(stack), stack.shape[2] // patch, stack.shape[3] // patch), np.float32)
        for *at, share in content["defects"]:
            defect[tuple(at)] = share
        normal, names = np.array(content["normal"]), tuple(content["names"])
        return cls(content["name"], stack, normal, defect, patch, names, content["columns"])


def defect_shares(mask: NDArray, patch: int) -> NDArray[np.float32]:
    """Share of defective pixels in each patch of a mask (H, W), (rows, columns)."""
    rows, columns = mask.shape[0] // patch, mask.shape[1] // patch
    cut = mask[: rows * patch, : columns * patch].reshape(rows, patch, columns, patch)
    return cut.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)


class Split(NamedTuple):
    """Numbers of normal images for three purposes, disjoint, in random order."""

    estimation: NDArray[np.int64]
    pool: NDArray[np.int64]
    testing: NDArray[np.int64]


def split(images: ImageSet, rng: np.random.Generator, n: int) -> Split:
    """Split the normal images: n for training (half of them at most), the rest in halves for estimation and testing."""
    order = rng.permutation(np.flatnonzero(images.normal))
    size = min(n, len(order) // 2)
    if len(order) - size < 8:
        raise InvalidInputError(
            f"the image set {images.name!r} has {len(order)} normal images: too few to estimate, train and test"
        )
    rest = np.array_split(order[size:], 2)
    return Split(rest[0], order[:size], rest[1])


def texture_patches(name: str, patch: int = 16) -> ImageSet:
    """Patches of a texture of scikit-image (``brick``, ``grass`` or ``gravel``), as images with a single position.

    The upper quarter of the texture trains the network of the quick run (:func:`texture_strips`) and is not used here.
    Every sixth of the remaining patches gets a synthetic defect and becomes an anomaly; they are used for nothing else.
    """
    if name not in TEXTURES:
        raise InvalidInputError(f"the texture must be one of {', '.join(TEXTURES)}, not {name!r}")
    from skimage import data

    texture = getattr(data, name)()[_TRAINING_ROWS:]
    rows, columns = (s // patch for s in texture.shape)
    cut = texture[: rows * patch, : columns * patch].reshape(rows, patch, columns, patch).swapaxes(1, 2)
    images = cut.reshape(-1, 1, patch, patch).copy()
    normal = np.arange(len(images)) % _DEFECT_EVERY != 0
    defect = np.zeros((len(images), 1, 1), np.float32)
    rng = np.random.default_rng(list(name.encode()))
    for i in np.flatnonzero(~normal):
        images[i, 0], mask = with_defect(images[i, 0], rng)
        defect[i] = mask.mean()
    names = tuple(f"row {i // columns}, column {i % columns}" for i in range(len(images)))
    return ImageSet(name, images, normal, defect, patch, names, columns)


def texture_strips() -> dict[str, NDArray[np.uint8]]:
    """The part of each texture that trains the network of the quick run, (rows, columns)."""
    from skimage import data

    return {name: getattr(data, name)()[:_TRAINING_ROWS] for name in TEXTURES}


def with_defect(image: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A synthetic defect on a patch (p, p), a dark or bright smooth spot of 0.7 p across: image and mask."""
    p = image.shape[0]
    centre = rng.uniform(0.35 * p, 0.65 * p, size=2)
    y, x = np.mgrid[:p, :p]
    distance = np.hypot(y - centre[0], x - centre[1]) / (0.35 * p)
    mask = distance < 1
    level = rng.choice([20.0, 235.0])
    weight = np.where(mask, 0.85 * (1 - distance**4), 0.0)
    return np.round(image * (1 - weight) + level * weight).astype(np.uint8), mask
