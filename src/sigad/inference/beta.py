"""The square root of a beta variable, X^2 ~ Beta(a, b) with X in [0, 1], in log space.

It is the law of a statistic whose variance is estimated, given what the estimate and the statistic have in common: with
independent U ~ chi_p and SS ~ chi2_q (both in the same unknown unit), X = U / sqrt(U^2 + SS) has X^2 ~ Beta(p/2, q/2)
and is independent of U^2 + SS. Everything is a function of X and not of X^2, whose distance from 1 would be rounded
where X is close to 1.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sigad.inference.quadrature import integrate, log_difference

# Below this, scipy's incomplete beta function underflows, and its logarithm is taken from a continued fraction.
_TINY = 1e-280
_STEPS = 10_000


def log_density(x: NDArray, a: float, b: float) -> NDArray[np.float64]:
    """Log density of X at x in (0, 1)."""
    return np.log(2.0) + (2 * a - 1) * np.log(x) + (b - 1) * _log_rest(x) - special.betaln(a, b)


def log_mass(low: NDArray, high: NDArray, a: float, b: float) -> NDArray[np.float64]:
    """Log of P(low <= X <= high) for 0 <= low < high <= 1, (m,) each."""
    width = high - low
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope = np.maximum(_slope(low, a, b), _slope(high, a, b))
        bend = abs(2 * a - 1) / low**2 + abs(b - 1) * (1 / (1 - high) ** 2 + 1)
        near = (high <= 1.5 * low) & (1 - low <= 1.5 * (1 - high))
        narrow = near & (width * slope <= 8.0) & (width**2 * bend <= 4.0)
    result = np.empty_like(low)
    if narrow.any():
        result[narrow] = integrate(lambda x: log_density(x, a, b), low[narrow], high[narrow])
    if narrow.all():
        return result
    low, high = low[~narrow], high[~narrow]
    median = np.sqrt(special.betaincinv(a, b, 0.5))
    wide = np.empty_like(low)
    above, below = low >= median, high <= median
    across = ~(above | below)
    wide[above] = log_difference(_log_above(low[above], a, b), _log_above(high[above], a, b))
    wide[below] = log_difference(_log_below(high[below], a, b), _log_below(low[below], a, b))
    outside = special.betainc(a, b, low[across] ** 2) + special.betainc(b, a, _rest(high[across]))
    wide[across] = np.log1p(-outside)
    result[~narrow] = wide
    return result


def _rest(x: NDArray) -> NDArray:
    """1 - x^2, without cancellation."""
    return (1 - x) * (1 + x)


def _log_rest(x: NDArray) -> NDArray:
    with np.errstate(divide="ignore"):
        return np.log1p(-x) + np.log1p(x)


def _slope(x: NDArray, a: float, b: float) -> NDArray:
    """|d log density / dx|."""
    return np.abs((2 * a - 1) / x - 2 * (b - 1) * x / _rest(x))


def _log_below(x: NDArray, a: float, b: float) -> NDArray:
    with np.errstate(divide="ignore"):
        return _log_tail(a, b, x * x, 2 * np.log(x), _log_rest(x))


def _log_above(x: NDArray, a: float, b: float) -> NDArray:
    with np.errstate(divide="ignore"):
        return _log_tail(b, a, _rest(x), _log_rest(x), 2 * np.log(x))


def _log_tail(a: float, b: float, y: NDArray, log_y: NDArray, log_rest: NDArray) -> NDArray:
    """Log of the regularised incomplete beta function I_y(a, b) below its median."""
    tail = special.betainc(a, b, y)
    with np.errstate(divide="ignore"):
        result = np.log(tail)
    deep = (tail < _TINY) & np.isfinite(log_y)
    if deep.any():
        scale = a * log_y[deep] + b * log_rest[deep] - np.log(a) - special.betaln(a, b)
        result[deep] = scale + np.log(_continued_fraction(a, b, y[deep]))
    return result


def _continued_fraction(a: float, b: float, y: NDArray) -> NDArray:
    """I_y(a, b) a B(a, b) / (y^a (1 - y)^b), by Lentz's method; quick for y < (a + 1) / (a + b + 2)."""
    c, d = np.ones_like(y), 1 / (1 - (a + b) * y / (a + 1))
    h, step = d.copy(), np.full_like(y, np.inf)
    for i in range(1, _STEPS):
        # What has converged stays as it is: a result must not depend on what else is in the batch.
        active = np.abs(step - 1) >= 1e-15
        if not active.any():
            break
        step = np.ones_like(y)
        for factor in (
            i * (b - i) / ((a + 2 * i - 1) * (a + 2 * i)),
            -(a + i) * (a + b + i) / ((a + 2 * i) * (a + 2 * i + 1)),
        ):
            d = 1 / (1 + factor * y * d)
            c = 1 + factor * y / c
            step = step * c * d
        step = np.where(active, step, 1.0)
        h = h * step
    return h
