"""Selective inference for k-nearest-neighbour anomaly detection (Niihori et al., NeurIPS 2025)."""

from sigad.knn.detection import Detections, KnnSelection, detect, scores
from sigad.knn.inference import knn_test, knn_test_batch, statistic
from sigad.knn.regions import order_region, selection_region

__all__ = [
    "Detections",
    "KnnSelection",
    "detect",
    "knn_test",
    "knn_test_batch",
    "order_region",
    "scores",
    "selection_region",
    "statistic",
]
