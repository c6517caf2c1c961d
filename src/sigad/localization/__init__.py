"""Selective inference for anomaly localization by reconstruction (Katsuoka et al., TMLR 2026).

:func:`localization_test` works for any piecewise-linear torch module that reconstructs images; the diffusion model of
the paper is in :mod:`sigad.models.diffusion`.
"""

from sigad.inference.covariance import AutoregressiveCovariance
from sigad.inference.estimated import EstimatedScale
from sigad.localization.coarse import Blocks, BoundingBox, CoarseMap, Parts
from sigad.localization.contrast import Contrast, ReferenceScale, contrast
from sigad.localization.detector import Detector, Localization
from sigad.localization.hypothesis import MaskHypothesis
from sigad.localization.test import LocalizationResult, localization_test

__all__ = [
    "AutoregressiveCovariance",
    "Blocks",
    "BoundingBox",
    "CoarseMap",
    "Contrast",
    "Detector",
    "EstimatedScale",
    "Localization",
    "LocalizationResult",
    "MaskHypothesis",
    "Parts",
    "ReferenceScale",
    "contrast",
    "localization_test",
]
