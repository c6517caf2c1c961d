"""Selective inference for k-nearest-neighbour anomaly detection (Niihori et al., NeurIPS 2025)."""

import importlib

_NAMES = {
    "Detections": "sigad.knn.detection",
    "EstimatedCovariance": "sigad.inference.estimated",
    "EstimatedScale": "sigad.inference.estimated",
    "KnnSelection": "sigad.knn.detection",
    "NeighbourhoodSelection": "sigad.knn.against",
    "NormalModel": "sigad.knn.normal_model",
    "detect": "sigad.knn.detection",
    "knn_test": "sigad.knn.neighbour",
    "knn_test_batch": "sigad.knn.neighbour",
    "neighbourhood_region": "sigad.knn.neighbourhood",
    "order_region": "sigad.knn.closed_form",
    "scores": "sigad.knn.detection",
    "selection_region": "sigad.knn.closed_form",
    "statistic": "sigad.knn.covariance",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str):
    # On demand, so that whoever imports a module of this package depends on what that module needs and no more.
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
