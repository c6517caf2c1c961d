"""Real images and weights in ../shared/data, which are no part of the project: tests that want them skip without."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


def shared(path: str) -> Path:
    """A path in ../shared/data; skips the test, saying so, where it is absent."""
    if not (SHARED / path).exists():
        pytest.skip(f"../shared/data/{path} is not there")
    return SHARED / path


def squeezenet(layer: str = "features.4"):
    """SqueezeNet 1.1 with ImageNet weights on pixels 0..255, up to a layer."""
    from sigad.models.features import load_features

    path = shared("weights/squeezenet1_1_imagenet_ndf.npz")
    return load_features(
        {
            "architecture": "squeezenet1_1",
            "path": path,
            "layer": layer,
            "bgr": True,
            "mean": (103.939, 116.779, 123.68),
            "std": (1.0, 1.0, 1.0),
        }
    )


def cifar_resnet20(layer: str = "layer3"):
    """ResNet-20 with CIFAR-10 weights on pixels 0..255, up to a layer."""
    from sigad.models.features import IMAGENET, load_features

    path = shared("weights/cifar10_resnet20-12fca82f.th")
    return load_features({"architecture": "cifar_resnet20", "path": path, "layer": layer, "scale": 1 / 255, **IMAGENET})
