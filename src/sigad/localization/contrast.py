"""The tested statistic of a marked region: the mean of the image minus the mean of a reference, on a line."""

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.inference.contrast import Contrast
from sigad.inference.covariance import Covariance, multiplication
from sigad.inference.estimated import Estimated, EstimatedCovariance, EstimatedScale


def contrast(
    mask: NDArray[np.bool_],
    x: NDArray[np.float64],
    x_ref: NDArray[np.float64],
    covariance: Covariance | EstimatedScale,
) -> Contrast:
    """Mean of x (C, H, W) minus mean of x_ref over the pixels of the mask (H, W), not empty, with its standard error.

    x and the reference are independent with the same covariance; x_ref (R, C, H, W) are R references, independent too,
    whose mean is taken. See :func:`sigad.localization.localization_test`.
    """
    weights = np.broadcast_to(mask, x.shape).astype(np.float64).ravel()
    weights /= weights.sum()
    references = x_ref.reshape(-1, *x.shape)
    moved = multiply(covariance, weights)
    variance = (1 + 1 / len(references)) * float(weights @ moved)
    if not variance > 0:
        raise InvalidInputError("the covariance must be positive definite: the effect has no positive variance")
    effect, error = float(weights @ (x - references.mean(axis=0)).ravel()), variance**0.5
    null = "normal"
    if isinstance(covariance, EstimatedScale):
        df = covariance.degrees_of_freedom
        null = ("signed-beta", df / 2, float(np.hypot(effect / error, df**0.5)))
    return Contrast(effect, error, (moved / error).reshape(x.shape), null)


def multiply(covariance: Covariance | Estimated, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sigma times the weights (n,), for a covariance that is known, or known but for its estimated scale."""
    if isinstance(covariance, EstimatedCovariance):
        raise InvalidInputError(
            "the covariance of all pixels cannot be estimated exactly: fix its shape, and estimate the scale only "
            "(EstimatedScale)"
        )
    if isinstance(covariance, EstimatedScale):
        if len(covariance):
            raise InvalidInputError("one image has one scale: sum_of_squares must be a number")
        return float(covariance.variance) * multiplication(covariance.shape, weights.size)(weights)
    return multiplication(covariance, weights.size)(weights)
