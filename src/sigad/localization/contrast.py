"""The tested statistic of a marked region: the mean of the image minus the mean of a reference, on a line."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.inference.contrast import Contrast, linear_contrast
from sigad.inference.covariance import Covariance, multiplication
from sigad.inference.estimated import EstimatedScale


@dataclass(frozen=True)
class ReferenceScale:
    """A covariance whose shape is known, with the scale that the references have over the pixels that are tested.

    The means of R independent references over a region scatter about their own mean with a sum of squares that is
    sigma^2 chi2_(R-1) and independent of that mean and of the image: the test is exact for them with the beta law of
    :class:`~sigad.inference.estimated.EstimatedScale`, and without selection it is Student's t-test of one image
    against R. How much the shape says that the mean over a region varies cancels out; only along which line it moves
    is the shape's.

    Parameters
    ----------
    shape : the covariance of one image up to a factor, which may differ from region to region.
    """

    shape: Covariance

    def over(self, weights: NDArray[np.float64], references: NDArray[np.float64]) -> EstimatedScale:
        """The covariance for a weighted sum of pixels, weights and references (R, *shape).

        Raises InvalidInputError for a single reference, and where all references have the same sum.
        """
        if len(references) < 2:
            raise InvalidInputError(
                "the scale of references needs two or more of them: give x_ref (R, C, H, W), or a known covariance"
            )
        sums = references.reshape(len(references), -1) @ weights.ravel()
        squares = float(np.square(sums - sums.mean()).sum())
        if not squares > 0:
            raise InvalidInputError("the references do not differ over the tested pixels: their scale is not known")
        unit = float(weights.ravel() @ multiplication(self.shape, weights.size)(weights.ravel()))
        return EstimatedScale(self.shape, sum_of_squares=squares / unit, degrees_of_freedom=len(references) - 1)


def contrast(
    mask: NDArray[np.bool_],
    x: NDArray[np.float64],
    x_ref: NDArray[np.float64],
    covariance: Covariance | EstimatedScale | ReferenceScale,
) -> Contrast:
    """Mean of x (C, H, W) minus mean of x_ref over the pixels of the mask (H, W), not empty, with its standard error.

    x and the reference are independent with the same covariance; x_ref (R, C, H, W) are R references, independent too,
    whose mean is taken. See :func:`sigad.localization.localization_test`.
    """
    weights = np.broadcast_to(mask, x.shape) / np.count_nonzero(np.broadcast_to(mask, x.shape))
    references = x_ref.reshape(-1, *x.shape)
    effect = float(weights.ravel() @ (x - references.mean(axis=0)).ravel())
    if isinstance(covariance, ReferenceScale):
        covariance = covariance.over(weights, references)
    return linear_contrast(weights, effect, covariance, factor=1 + 1 / len(references))
