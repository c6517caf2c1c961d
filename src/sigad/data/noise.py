"""Noise that departs from the normal distribution by a given amount, for experiments on robustness.

Source: Niihori et al. (NeurIPS 2025), appendix C.2 and figure 10: skew-normal, exponentially modified normal,
generalized normal and Student t noise, standardised to mean 0 and variance 1, at a given 1-Wasserstein distance from
N(0, 1).
"""

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sigad.errors import ConfigurationError, InvalidInputError

# scipy.stats and scipy.optimize take half a second to import, and most trials have normal noise: they are imported
# where they are needed.
if TYPE_CHECKING:
    from scipy.stats.distributions import rv_frozen

NoiseFamily = Literal["normal", "skewnorm", "exponnorm", "gennorm_steep", "gennorm_flat", "t"]
FAMILIES: tuple[str, ...] = get_args(NoiseFamily)


class _Family(NamedTuple):
    """One family. ``strength`` > 0 says how far it is from the normal one; the distance increases with it."""

    scipy: str  # its name in scipy.stats
    shape: Callable[[float], float]  # strength -> shape parameter as scipy.stats names it
    strengths: tuple[float, float]  # where the shape is looked for


# Larger strengths hardly change the distance (skewnorm, exponnorm, gennorm_flat: the half-normal, exponential and
# uniform distributions), or have tails so heavy that even the sample variance does not settle (gennorm_steep, t).
_FAMILY = {
    "skewnorm": _Family("skewnorm", lambda s: s, (1e-2, 1e2)),
    "exponnorm": _Family("exponnorm", lambda s: s, (1e-2, 3e1)),
    "gennorm_steep": _Family("gennorm", lambda s: 2 - s, (1e-6, 1.5)),
    "gennorm_flat": _Family("gennorm", lambda s: 2 + s, (1e-6, 2e1)),
    "t": _Family("t", lambda s: 2 + 1 / s, (1e-6, 1e1)),
}


def standardised(family: NoiseFamily, shape: float) -> "rv_frozen":
    """The distribution of a family with mean 0 and variance 1, as a frozen distribution of scipy.stats.

    Parameters
    ----------
    family : one of FAMILIES.
    shape : its shape parameter as scipy.stats names it: a of ``skewnorm``, K of ``exponnorm``, beta of ``gennorm``
        (below 2 steep, above 2 flat), df > 2 of ``t``; ignored for ``"normal"``.
    """
    from scipy import stats

    if family == "normal":
        return stats.norm()
    raw = getattr(stats, _known(family).scipy)
    mean, variance = raw.stats(shape, moments="mv")
    scale = 1 / math.sqrt(variance)
    return raw(shape, loc=-float(mean) * scale, scale=scale)


def wasserstein_to_normal(dist: "rv_frozen") -> float:
    """1-Wasserstein distance between a continuous distribution and N(0, 1): the integral of |F(x) - Phi(x)| dx.

    Parameters
    ----------
    dist : frozen distribution of scipy.stats with a finite mean.

    Returns
    -------
    float, with an absolute error below 1e-7 for a smooth distribution function.
    """
    from scipy import optimize

    cdf, sf = _distribution_functions(dist)

    def difference(x: NDArray) -> NDArray[np.float64]:
        return np.where(x > 0, special.ndtr(-x) - sf(x), cdf(x) - special.ndtr(x))  # no cancellation in tails

    # The integrand has a kink wherever the two distribution functions cross; in between it is smooth.
    tail = 8 * 1.25 ** np.arange(1, 60)  # up to 4e6: heavy tails are met by panels that grow
    knots = np.concatenate([-tail[::-1], np.linspace(-8, 8, 65), tail])
    values = difference(knots)
    crossings = [
        optimize.brentq(difference, *knots[i : i + 2], xtol=1e-12) for i in np.flatnonzero(values[:-1] * values[1:] < 0)
    ]
    edges = np.sort([*knots, *crossings])[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(edges, axis=0) / 2
    return float(((np.abs(difference(edges[:-1] + half * (nodes + 1))) * half) @ weights).sum())


def _distribution_functions(dist: "rv_frozen") -> tuple[Callable, Callable]:
    """Distribution function and its complement."""
    if dist.dist.name != "skewnorm":
        return dist.cdf, dist.sf
    # scipy integrates the density numerically for some shapes, which takes seconds; Owen's T function does not.
    shape, loc, scale = dist.args[0], dist.kwds.get("loc", 0.0), dist.kwds.get("scale", 1.0)

    def cdf(x: NDArray, sign: float = 1.0) -> NDArray[np.float64]:
        y = sign * (x - loc) / scale
        return special.ndtr(y) - 2 * special.owens_t(y, sign * shape)

    return cdf, lambda x: cdf(x, -1.0)


@cache
def _reach(family: NoiseFamily) -> tuple[float, float]:
    """The smallest and the largest distance that a family is taken to."""
    known = _known(family)
    low, high = (wasserstein_to_normal(standardised(family, known.shape(s))) for s in known.strengths)
    return low, high


def check_distance(family: NoiseFamily, distance: float) -> None:
    """Raise what :func:`shape_for_distance` would raise, without solving for the shape."""
    if family == "normal":
        raise ConfigurationError("the family 'normal' has no shape: it lies at distance 0; choose another family")
    _known(family)
    if not (math.isfinite(distance) and distance > 0):
        raise InvalidInputError(f"distance must be positive, not {distance!r}; at distance 0 every family is normal")
    low, high = _reach(family)
    if not low <= distance <= high:
        raise ConfigurationError(
            f"noise of the family {family!r} cannot lie at a 1-Wasserstein distance of {distance:g} from N(0, 1): "
            f"choose a distance between {low:.2g} and {high:.4f}, or 0"
        )


@cache
def shape_for_distance(family: NoiseFamily, distance: float) -> float:
    """Shape parameter with which the standardised family lies at a 1-Wasserstein distance from N(0, 1).

    Parameters
    ----------
    family : one of FAMILIES except ``"normal"``.
    distance : 1-Wasserstein distance, > 0.

    Returns
    -------
    The shape parameter as scipy.stats names it, see :func:`standardised`; for skewed families the positive one.

    Raises
    ------
    ConfigurationError
        for an unknown family, or a distance that the family cannot reach; the message gives the range.
    InvalidInputError
        for a distance that is not positive.
    """
    from scipy import optimize

    check_distance(family, distance)
    known = _known(family)

    def gap(log_strength: float) -> float:
        return wasserstein_to_normal(standardised(family, known.shape(math.exp(log_strength)))) - distance

    low, high = (math.log(s) for s in known.strengths)
    return known.shape(math.exp(optimize.brentq(gap, low, high, xtol=1e-10, rtol=1e-12)))


def sample(
    rng: np.random.Generator, family: NoiseFamily, distance: float, size: int | tuple[int, ...]
) -> NDArray[np.float64]:
    """Independent noise with mean 0 and variance 1 at a 1-Wasserstein distance from N(0, 1).

    At distance 0 this is ``rng.standard_normal(size)`` exactly, for every family.

    Parameters
    ----------
    rng : source of randomness.
    family : one of FAMILIES.
    distance : 1-Wasserstein distance, >= 0.
    size : shape of the result.

    Raises
    ------
    ConfigurationError, InvalidInputError
        as :func:`shape_for_distance`.
    """
    if family != "normal":
        _known(family)
    if distance == 0:
        return rng.standard_normal(size)
    shape = shape_for_distance(family, float(distance))
    if family == "skewnorm":
        delta = shape / math.hypot(1, shape)
        raw = delta * np.abs(rng.standard_normal(size)) + math.sqrt(1 - delta**2) * rng.standard_normal(size)
        return (raw - delta * math.sqrt(2 / math.pi)) / math.sqrt(1 - 2 * delta**2 / math.pi)
    if family == "exponnorm":
        raw = rng.standard_normal(size) + shape * rng.standard_exponential(size)
        return (raw - shape) / math.hypot(1, shape)
    if family == "t":
        return rng.standard_t(shape, size) * math.sqrt((shape - 2) / shape)
    # Generalized normal: |X|^beta is gamma distributed with shape 1/beta.
    magnitude = rng.standard_gamma(1 / shape, size) ** (1 / shape)
    scale = math.exp((special.gammaln(1 / shape) - special.gammaln(3 / shape)) / 2)
    return scale * np.where(rng.random(size) < 0.5, -magnitude, magnitude)


def _known(family: str) -> _Family:
    if family not in _FAMILY:
        raise ConfigurationError(f"unknown family of noise {family!r}: choose one of {', '.join(FAMILIES)}")
    return _FAMILY[family]
