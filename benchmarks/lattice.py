"""Cost of a p-value by the lattice engine: evaluations, own weight and seconds, one core.

    python benchmarks/lattice.py [diffusion] [outliers] [features] [--sizes 8 16 32 64] [--problems 3]

diffusion: the detectors and images of benchmarks/localization.py, at resolutions 1, 4 and 8, and the p-value and time
of the exact engine beside up to 16 x 16. outliers: scikit-learn's isolation forest and PyOD's, and PyOD's KNN, on 10
columns. features: kNN tests with ResNet-50 and ViT-S/16 (with timm; ViT-B/16 of torchvision otherwise) on 224 x 224
images, 20 training images, random weights. Detectors run in single precision. Times are processor times, for the
machine may be shared.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch
from _networks import trained_unet
from localization import STEPS, Reconstruct, problems

from sigad import Lattice, instance_test, knn_test, localization_test
from sigad.errors import MissingPackageError
from sigad.inference.result import TESTED
from sigad.knn.network import NetworkFeatures
from sigad.models.adapters.outliers import flags
from sigad.models.adapters.vision import without_head
from sigad.models.vision import import_torchvision


def timed(test, *args, **given):
    start = time.process_time()
    return test(*args, **given), time.process_time() - start


def show(name: str, result, seconds: float, more: str = "") -> None:
    if result.status != TESTED:
        print(f"{name}: {result.status}")
        return
    lattice = (result.region[:, 0] == result.region[:, 1]).all()
    points = f"{len(result.region)} points in Z" if lattice else f"{len(result.region)} intervals"
    print(
        f"{name}: p {result.p_value:.4f}, {result.n_evaluations} evaluations, {points}, {seconds:.2f} s {more}",
        flush=True,
    )


def diffusion(sizes: list[int], count: int) -> None:
    for size in sizes:
        for i, (detector, x, x_ref) in enumerate(problems(trained_unet(size, STEPS[size]), size, count)):
            images = (Reconstruct(detector).eval(), x, x_ref)
            for resolution in (1, 4, 8):
                name = f"{size} x {size}, image {i}, blocks of {resolution}"
                test = partial(localization_test, threshold=0.8, covariance=1.0, resolution=resolution)
                for spacing in (0.05, 0.01) if resolution == 1 else (0.1, 0.05):
                    engine = Lattice(spacing=spacing, batch=32)
                    show(f"{name}, spacing {spacing}", *timed(test, *images, engine=engine, dtype=torch.float32))
                if size <= 16:
                    show(f"{name}, exact", *timed(test, *images))


def outliers() -> None:
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(0)
    rows, references, x = rng.standard_normal((500, 10)), rng.standard_normal((50, 10)), rng.standard_normal(10) + 1.5
    detectors = {"scikit-learn IsolationForest": IsolationForest(random_state=0)}
    try:
        from pyod.models.iforest import IForest
        from pyod.models.knn import KNN

        detectors |= {"PyOD IForest": IForest(random_state=0), "PyOD KNN": KNN()}
    except ModuleNotFoundError:
        print("PyOD is not installed")
    for name, detector in detectors.items():
        detect = flags(detector.fit(rows))
        for _ in range(2):  # the second is shown: what is imported on demand is there
            found = timed(instance_test, x, references, detect=detect, covariance=1.0, engine=Lattice(spacing=0.1))
        show(name, *found)


def features() -> None:
    models = import_torchvision().models
    networks = {"ResNet-50": models.resnet50(weights=None)}
    try:
        import timm

        networks["ViT-S/16"] = timm.create_model("vit_small_patch16_224", pretrained=False)
    except (ModuleNotFoundError, MissingPackageError):
        networks["ViT-B/16"] = models.vit_b_16(weights=None)
    rng = np.random.default_rng(0)
    x_train, x = rng.standard_normal((20, 3, 224, 224)), rng.standard_normal((3, 224, 224))
    for name, network in networks.items():
        module = NetworkFeatures(without_head(network), dtype=torch.float32)
        known = module(x_train)
        given = {"k": 3, "threshold": -50.0, "covariance": 1.0, "features": module, "train_features": known}
        found = timed(knn_test, x, x_train, engine=Lattice(spacing=0.1, batch=16), **given)
        show(f"{name}, 224 x 224", *found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["diffusion", "outliers", "features"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--problems", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "diffusion" in options.parts:
        diffusion(options.sizes, options.problems)
    if "outliers" in options.parts:
        outliers()
    if "features" in options.parts:
        features()
