"""Gaussian thinning: noise is added so that detection and test see independent halves of the same data.

With w ~ N(0, Sigma), drawn independently of x ~ N(mu, Sigma),

    x + tau w    is what the detector sees, with covariance (1 + tau^2) Sigma,
    x - w / tau  is what is tested, with covariance (1 + 1/tau^2) Sigma,

both with the mean mu and independent of each other, because cov(x + tau w, x - w/tau) = Sigma - Sigma = 0. Whatever
the detector selects from the first, the ordinary test of the second is exact: no conditioning, no search, any detector,
even a randomised one. The price: the detector sees noisier data, and the p-value depends on the draw of w. It is exact
for a known covariance only.

Source: Rasines & Young (2023), Tian & Taylor (2018) for the split by added noise; Neufeld et al. (2024) for the name.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import generator, real_array, real_number
from sigad.errors import InvalidInputError
from sigad.inference.covariance import Covariance, noise


class Thinned(NamedTuple):
    """Two independent versions of the same data: ``detection`` for the detector, ``test`` for the test.

    Their covariances are ``detection_variance`` and ``test_variance`` times that of the data.
    """

    detection: NDArray[np.float64]
    test: NDArray[np.float64]
    detection_variance: float
    test_variance: float


def thin(x: ArrayLike, covariance: Covariance, *, tau: float, rng: np.random.Generator) -> Thinned:
    """Split data into a version for detection and an independent one for the test.

    Parameters
    ----------
    x : (..., *shape) independent instances, each with the noise of the covariance; a single one for ``shape`` alone.
    covariance : of the noise of one instance, known: a variance; or for the n numbers of an instance in row-major
        order, n of which make up the last axes of x: (n,) variances, an (n, n) matrix, or an
        :class:`~sigad.inference.covariance.AutoregressiveCovariance`.
    tau : how much of the noise goes to the detector: large leaves more to the test, small more to the detector. Fixed
        beforehand.
    rng : draws w. The p-value depends on it: do not draw again because of what came out.

    Raises
    ------
    InvalidInputError
        for NaN, tau that is not positive, an rng that is no generator, or a covariance that noise cannot be drawn from.
    """
    x, tau = real_array(x, "x"), real_number(tau, "tau")
    if not tau > 0:
        raise InvalidInputError(f"tau must be positive, not {tau}")
    w = noise(covariance, x.shape, generator(rng))
    return Thinned(x + tau * w, x - w / tau, 1 + tau**2, 1 + tau**-2)
