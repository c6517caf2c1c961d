"""Selective inference for k-nearest-neighbour anomaly detection (Niihori et al., NeurIPS 2025)."""

from sigad.inference.estimated import EstimatedCovariance, EstimatedScale
from sigad.knn.against import NeighbourhoodSelection
from sigad.knn.closed_form import order_region, selection_region
from sigad.knn.covariance import statistic
from sigad.knn.detection import Detections, KnnSelection, detect, scores
from sigad.knn.neighbour import knn_test, knn_test_batch
from sigad.knn.neighbourhood import neighbourhood_region

__all__ = [
    "Detections",
    "EstimatedCovariance",
    "EstimatedScale",
    "KnnSelection",
    "NeighbourhoodSelection",
    "detect",
    "knn_test",
    "knn_test_batch",
    "neighbourhood_region",
    "order_region",
    "scores",
    "selection_region",
    "statistic",
]
