"""sigad: the significance of anomaly detections, by selective inference."""

__version__ = "0.1.0"

import importlib
import os

# Both are read once, before the first tensor and the first convolution; who has set them is not overruled.
# Large pages for large tensors, where the system has them: the line engine asks for memory all the time, and small
# pages cost a tenth of its time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# oneDNN compiles a convolution for each number of images and remembers 1,024. A network along lines needs more: to
# compile them again, test after test, costs a test of 16x16 images 8 % of its time.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")

_NAMES = {
    "Lattice": "sigad.inference.lattice",
    "TestResult": "sigad.inference.result",
    "Tolerance": "sigad.inference.result",
    "check": "sigad.line",
    "diagnose": "sigad.diagnosis",
    "instance_test": "sigad.instance",
    "judge": "sigad.rejections",
    "knn_test": "sigad.knn.neighbour",
    "knn_test_batch": "sigad.knn.neighbour",
    "localization_test": "sigad.localization.test",
    "selective_test": "sigad.selective",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str):
    # On demand: networks need torch, which takes seconds to import, and whoever tests tables does not need it.
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
