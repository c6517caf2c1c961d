"""Selective inference for anomaly localization by reconstruction (Katsuoka et al., TMLR 2026).

:func:`localization_test` works for any piecewise-linear torch module that reconstructs images; the diffusion model of
the paper is in :mod:`sigad.models.diffusion`.
"""

from sigad.localization.covariance import AutoregressiveCovariance
from sigad.localization.detector import Detector, Localization, LocalizationResult, contrast, localization_test

__all__ = [
    "AutoregressiveCovariance",
    "Detector",
    "Localization",
    "LocalizationResult",
    "contrast",
    "localization_test",
]
