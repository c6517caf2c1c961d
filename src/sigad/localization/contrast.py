"""The tested statistic of a marked region: the mean of the image minus the mean of a reference, on a line."""

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.inference.contrast import Contrast
from sigad.inference.covariance import Covariance, multiplication


def contrast(
    mask: NDArray[np.bool_], x: NDArray[np.float64], x_ref: NDArray[np.float64], covariance: Covariance
) -> Contrast:
    """Mean of x (C, H, W) minus mean of x_ref over the pixels of the mask (H, W), not empty, with its standard error.

    x and x_ref are independent with the same covariance; see :func:`sigad.localization.localization_test`.
    """
    weights = np.broadcast_to(mask, x.shape).astype(np.float64).ravel()
    weights /= weights.sum()
    moved = multiplication(covariance, weights.size)(weights)
    variance = 2 * float(weights @ moved)
    if not variance > 0:
        raise InvalidInputError("the covariance must be positive definite: the effect has no positive variance")
    effect = float(weights @ (x - x_ref).ravel())
    return Contrast(effect, variance**0.5, (moved / variance**0.5).reshape(x.shape))
