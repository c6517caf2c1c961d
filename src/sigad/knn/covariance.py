"""The statistic of a difference of two instances under a covariance."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from sigad.checks import real_array
from sigad.errors import InvalidInputError
from sigad.inference.covariance import check_matrix, check_variances

# Dimension above which one covariance for all problems is not solved for each of them by a general method.
_LARGE = 64


def statistic(difference: ArrayLike, covariance: ArrayLike) -> NDArray[np.float64]:
    """T = || (2 Sigma)^(-1/2) (x_test - x_j) ||, (B,), chi with d degrees of freedom under H0 without selection.

    Parameters
    ----------
    difference : (B, d) x_test - x_j.
    covariance : of one instance: a scalar (variance), (d,) (variances), (d, d), or (B, d, d) one per problem.

    Raises
    ------
    InvalidInputError
        for shapes that do not fit, NaN, or a covariance that is not positive definite.
    """
    difference, covariance = np.asarray(difference, np.float64), real_array(covariance, "covariance")
    b, d = difference.shape
    if covariance.ndim == 0 or covariance.shape == (d,):
        return np.sqrt((np.square(difference) / (2 * check_variances(covariance))).sum(axis=-1))
    if covariance.shape not in ((d, d), (b, d, d)):
        raise InvalidInputError(
            f"covariance must be a scalar, ({d},), ({d}, {d}) or (B, {d}, {d}), not {covariance.shape}"
        )
    _, factor = check_matrix(covariance)
    if covariance.ndim == 2 and d > _LARGE:
        white = np.stack([linalg.solve_triangular(factor, row, lower=True) for row in difference])
        return np.sqrt(np.square(white).sum(axis=-1) / 2)
    white = np.linalg.solve(np.broadcast_to(factor, (b, d, d)), difference[..., None])[..., 0]
    return np.sqrt(np.square(white).sum(axis=-1) / 2)
