"""The statistic of a difference of instances under a covariance, known or estimated."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array
from sigad.inference.covariance import whitened
from sigad.inference.estimated import Estimated
from sigad.inference.truncated import Null
from sigad.knn.detection import unit_of

KnnCovariance = ArrayLike | Estimated
CheckedCovariance = NDArray[np.float64] | Estimated


def statistic(difference: ArrayLike, covariance: KnnCovariance, factor: float = 2.0) -> NDArray[np.float64]:
    """T = || (factor Sigma)^(-1/2) difference ||, (B,), chi with d degrees of freedom under H0 without selection.

    Parameters
    ----------
    difference : (B, d), by default x_test - x_j.
    covariance : Sigma of one instance: a scalar (variance), (d,) (variances), (d, d), or (B, d, d) one per problem; or
        an estimate of it (:mod:`sigad.inference.estimated`), which is put in its place.
    factor : of the difference's covariance: 2 for two instances, 1 + 1/m for one and the mean of m others.

    Raises
    ------
    InvalidInputError
        for shapes that do not fit, NaN, or a covariance that is not positive definite.
    """
    return standardised(difference, covariance, factor)[0]


def standardised(difference: ArrayLike, covariance: KnnCovariance, factor: float) -> tuple[NDArray[np.float64], Null]:
    """The statistic (B,) as in :func:`statistic`, and its null distribution without selection."""
    difference = np.asarray(difference, np.float64)
    if isinstance(covariance, Estimated):
        return covariance.standardised(difference, factor)
    unit = unit_of(np.abs(difference).max(axis=-1))
    white = whitened(difference / unit[:, None], covariance)
    return unit * np.sqrt(np.square(white).sum(axis=-1) / factor), ("chi", difference.shape[-1])


def checked(covariance: KnnCovariance) -> tuple[CheckedCovariance, int]:
    """A covariance as an array or an estimate, and how many problems have one of their own: 0 if all share one."""
    if isinstance(covariance, Estimated):
        return covariance, len(covariance)
    covariance = real_array(covariance, "covariance")
    return covariance, len(covariance) if covariance.ndim == 3 else 0


def of_problems(covariance: CheckedCovariance, which) -> CheckedCovariance:
    """The covariances of some of the problems."""
    return covariance[which] if isinstance(covariance, Estimated) or covariance.ndim == 3 else covariance
