"""Probabilities of intervals as logarithms: integrated where they are narrow, subtracted where they are not."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def integrate(log_density: Callable[[NDArray], NDArray], a: NDArray, b: NDArray) -> NDArray:
    """Log of the integral of a density over [a, b], (m,), by Gauss-Legendre.

    To rounding where the interval is narrow: the log density changes by a few units at most, and its singularities are
    further away than the interval is long.
    """
    half = 0.5 * (b - a)
    z = (0.5 * (a + b))[:, None] + half[:, None] * _NODES
    value = log_density(z)
    top = value.max(axis=-1)
    mean = (np.exp(value - top[:, None]) * _WEIGHTS).sum(axis=-1) / 2
    return np.log(b - a) + top + np.log(mean)


def log_difference(log_large: NDArray, log_small: NDArray) -> NDArray:
    """log(exp(log_large) - exp(log_small)); log_large may not be -inf."""
    return log_large + np.log1p(-np.exp(np.minimum(log_small - log_large, 0.0)))
