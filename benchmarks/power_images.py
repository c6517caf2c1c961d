"""Type I error and power on patches of real images: NormalModel on pixels and on features, as in power_tables.py.

    python benchmarks/power_images.py results/reference/knn_patches.csv [folder with mvtec_ad_256 and weights]

``space``: the pixels of a patch without a transform, or features of a network after Yeo and Johnson's; ``rule`` chooses
the number of components on normal patches, 5 and 10 do not. The three textures that ship with scikit-image (16 x 16,
the small CNN of the quick run, 60 repetitions), and MVTec AD transistor (256 x 256, 64 positions of 32 x 32 patches,
SqueezeNet, two repetitions at each position).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from power_tables import REPETITIONS, Classes, run, write
from validity_images import network

from sigad.data.embeddings import Embeddings
from sigad.data.images import TEXTURES, texture_patches
from sigad.data.mvtec import read_category
from sigad.knn.network import NetworkFeatures
from sigad.models.features import load_features

SQUEEZENET = {
    "architecture": "squeezenet1_1",
    "layer": "features.7",
    "bgr": True,
    "mean": (103.939, 116.779, 123.68),
    "std": (1.0, 1.0, 1.0),
}


def pixels(patches: np.ndarray) -> np.ndarray:
    """The patches themselves."""
    return patches.reshape(len(patches), -1)


def sets(folder: Path | None) -> Iterator[tuple[str, str, Embeddings, int]]:
    """Name, space, data, and repetitions at each position."""
    for name in TEXTURES:
        images = texture_patches(name)
        yield name, "pixels", Embeddings.of(images, pixels), REPETITIONS
        yield name, "features", Embeddings.of(images, network().approximate), REPETITIONS
    if folder is not None and (folder / "mvtec_ad_256" / "transistor").is_dir():
        images = read_category(folder / "mvtec_ad_256" / "transistor", patch=32)
        yield "transistor", "pixels", Embeddings.of(images, pixels), 2
        entry = SQUEEZENET | {"path": folder / "weights" / "squeezenet1_1_imagenet_ndf.npz"}
        features = NetworkFeatures(load_features(entry)).approximate
        yield "transistor", "features", Embeddings.of(images, features), 2


def main() -> None:
    rows = []
    for name, space, data, repetitions in sets(Path(sys.argv[2]) if len(sys.argv) > 2 else None):
        tables = [data.table(position) for position in np.ndindex(data.values.shape[:2])]
        given = [Classes(table, np.zeros(len(table), int)) for table in tables for _ in range(repetitions)]
        for rule in ("auto", 5, 10):
            transform = None if space == "pixels" else "yeo-johnson"
            found = run(given, components=rule, transform=transform)
            named = {"images": name, "space": space, "rule": "tails" if rule == "auto" else rule}
            rows += [named | row for row in found]
            print(*rows[-12:], sep="\n", flush=True)
            write(sys.argv[1], rows)


if __name__ == "__main__":
    main()
