"""Selective inference for anomaly localization by reconstruction (Katsuoka et al., TMLR 2026).

:func:`localization_test` works for any piecewise-linear torch module that reconstructs images. The diffusion
model of the paper is in the modules ``unet``, ``schedule``, ``reconstruct`` and ``training``, which need diffusers.
"""

import importlib

_MODULES = {
    "AutoregressiveCovariance": "covariance",
    "Detector": "localization",
    "Localization": "localization",
    "LocalizationResult": "localization",
    "contrast": "localization",
    "localization_test": "localization",
}
__all__ = sorted(_MODULES)


# Imported on demand: what trains a network does not depend on how it is tested, nor does its digest.
def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
