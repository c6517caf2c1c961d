"""Type I error and power on patches of real images: NormalModel on pixels and on features, as in power_tables.py.

    python benchmarks/power_images.py results/reference/knn_patches.csv [folder with mvtec_ad_256, weights [features]]

``features``: the pixels of a patch, without a transform; or, after Yeo and Johnson's, a thumbnail of 8 x 8 pixels, the
small CNN of the quick run, SqueezeNet with ImageNet weights up to features.10 (patches enlarged to 64 x 64), and the
last features of a ResNet-20 trained on CIFAR-10 (32 x 32). With names of features after the folder, only those.
``rule``: the number of components is chosen on normal patches, by their tails; 5 and 10 of pixels are not. ``k``: 5, or
1 to 10. Images: the three textures that ship with scikit-image (16 x 16, 60 repetitions), and MVTec AD transistor (256
x 256, 64 positions of 32 x 32 patches, 12 repetitions at each).
"""

import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
from power_tables import KS, REPETITIONS, Classes, run, write
from validity_images import network

from sigad.data.embeddings import Embeddings
from sigad.data.images import TEXTURES, ImageSet, texture_patches
from sigad.data.mvtec import read_category
from sigad.knn.network import NetworkFeatures
from sigad.models.features import load_features

THUMBNAIL = {"architecture": "pixels", "resize": (8, 8), "pool": False}
SQUEEZENET = {
    "architecture": "squeezenet1_1",
    "layer": "features.10",
    "resize": (64, 64),
    "bgr": True,
    "mean": (103.939, 116.779, 123.68),
    "std": (1.0, 1.0, 1.0),
}
RESNET20 = {
    "architecture": "cifar_resnet20",
    "layer": "layer3",
    "resize": (32, 32),
    "scale": 1 / 255,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def sets(folder: Path | None) -> Iterator[tuple[ImageSet, int]]:
    """Sets of images, and repetitions at each position."""
    for name in TEXTURES:
        yield texture_patches(name), REPETITIONS
    if folder is not None and (folder / "mvtec_ad_256" / "transistor").is_dir():
        yield read_category(folder / "mvtec_ad_256" / "transistor", patch=32), 12


def networks(images: ImageSet, folder: Path | None) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray], tuple]]:
    """Features by name, and the rules for their components."""
    yield "pixels", lambda patches: patches.reshape(len(patches), -1), ("auto", 5, 10)
    yield "thumbnail", NetworkFeatures(load_features(THUMBNAIL)).approximate, ("auto",)
    if images.images.shape[1] == 1:
        yield "small_cnn", network().approximate, ("auto",)
    if folder is not None:
        entry = SQUEEZENET | {"path": folder / "weights" / "squeezenet1_1_imagenet_ndf.npz"}
        yield "squeezenet", NetworkFeatures(load_features(entry)).approximate, ("auto",)
        entry = RESNET20 | {"path": folder / "weights" / "cifar10_resnet20-12fca82f.th"}
        yield "cifar_resnet20", NetworkFeatures(load_features(entry)).approximate, ("auto",)


def positions(images: ImageSet, features: Callable[[np.ndarray], np.ndarray]) -> list[Classes]:
    """The features of the patches at each position, as a table whose normal rows are of one class."""
    data = Embeddings.of(images, features)
    tables = [data.table(position) for position in np.ndindex(data.values.shape[:2])]
    return [Classes(table, np.zeros(len(table), int)) for table in tables]


def main() -> None:
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    rows = []
    for images, repetitions in sets(folder):
        for name, features, rules in networks(images, folder):
            if sys.argv[3:] and name not in sys.argv[3:]:
                continue
            given = [one for one in positions(images, features) for _ in range(repetitions)]
            for k, rule in product(KS, rules):
                found = run(given, k=k, components=rule, transform=None if name == "pixels" else "yeo-johnson")
                named = {"images": images.name, "features": name, "rule": "tails" if rule == "auto" else rule}
                rows += [named | row for row in found]
                print(*rows[-12:], sep="\n", flush=True)
                write(sys.argv[1], rows)


if __name__ == "__main__":
    main()
