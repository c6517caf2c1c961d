"""Selective inference for anomaly localization by reconstruction (Katsuoka et al., TMLR 2026).

:func:`localization_test` works for any piecewise-linear torch module that reconstructs images. The diffusion
model of the paper is in the modules ``unet``, ``schedule``, ``reconstruct`` and ``training``, which need diffusers.
"""

from sigad.diffusion.covariance import AutoregressiveCovariance
from sigad.diffusion.localization import Detector, Localization, LocalizationResult, contrast, localization_test

__all__ = [
    "AutoregressiveCovariance",
    "Detector",
    "Localization",
    "LocalizationResult",
    "contrast",
    "localization_test",
]
