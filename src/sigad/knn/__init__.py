"""Selective inference for k-nearest-neighbour anomaly detection (Niihori et al., NeurIPS 2025)."""

from sigad.knn.closed_form import order_region, selection_region
from sigad.knn.detection import Detections, KnnSelection, detect, scores
from sigad.knn.neighbour import knn_test, knn_test_batch, statistic

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
