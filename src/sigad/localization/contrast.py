"""The tested statistic of a marked region: the mean of the image minus the mean of a reference, on a line."""

import numpy as np
from numpy.typing import NDArray

from sigad.inference.contrast import Contrast, linear_contrast
from sigad.inference.covariance import Covariance
from sigad.inference.estimated import EstimatedScale


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
    weights = np.broadcast_to(mask, x.shape) / np.count_nonzero(np.broadcast_to(mask, x.shape))
    references = x_ref.reshape(-1, *x.shape)
    effect = float(weights.ravel() @ (x - references.mean(axis=0)).ravel())
    return linear_contrast(weights, effect, covariance, factor=1 + 1 / len(references))
