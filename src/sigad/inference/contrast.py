"""A linear statistic of the data, and the line on which nothing else that matters changes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.inference.covariance import Covariance, multiplication
from sigad.inference.estimated import Estimated, EstimatedCovariance, EstimatedScale
from sigad.inference.result import Found
from sigad.inference.truncated import Null


@dataclass(frozen=True)
class Contrast:
    """The tested statistic: ``effect`` = ``statistic`` * ``standard_error``, and how the data move with it.

    ``direction`` (*shape): along the line the data are x + (z - statistic) * direction, which have the statistic z.
    ``null``: the statistic's distribution without selection.
    """

    effect: float
    standard_error: float
    direction: NDArray[np.float64]
    null: Null = "normal"

    @property
    def statistic(self) -> float:
        return self.effect / self.standard_error

    def images(self, x: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
        """The data (m, *shape) at the points z (m,) of the line through x (*shape)."""
        steps = np.asarray(z, np.float64) - self.statistic
        return x + steps.reshape(-1, *[1] * self.direction.ndim) * self.direction

    def confidence_interval(self, found: Found, level: float) -> tuple[float, float]:
        """Selective confidence interval for the true effect, by what an engine found along the line.

        Of an estimated scale none is computed: it is the whole line, which covers with any probability.
        """
        low, high = found.confidence_interval(level) if self.null == "normal" else (-np.inf, np.inf)
        return low * self.standard_error, high * self.standard_error


def linear_contrast(
    weights: NDArray[np.float64],
    effect: float,
    covariance: Covariance | Estimated,
    *,
    factor: float = 1.0,
) -> Contrast:
    """The statistic of an effect: of the weighted sum of the data, or of its difference from that of independent data.

    Parameters
    ----------
    weights : (*shape), of data that are normal with this covariance; not all zero.
    effect : the weighted sum of the data (minus that of the others).
    covariance : of the data; if only its scale is estimated, the null law is a beta law.
    factor : the effect's variance is so many times that of the weighted sum of the data.

    Raises
    ------
    InvalidInputError
        where the effect has no variance, and for a covariance that is not one.
    """
    moved = multiply(covariance, weights.ravel())
    variance = factor * float(weights.ravel() @ moved)
    if not variance > 0:
        raise InvalidInputError(
            "the effect has no variance: weights must not be all zero, and the covariance must be positive definite"
        )
    error, null = variance**0.5, "normal"
    if isinstance(covariance, EstimatedScale):
        df = covariance.degrees_of_freedom
        null = ("signed-beta", df / 2, float(np.hypot(effect / error, df**0.5)))
    return Contrast(effect, error, (moved / error).reshape(weights.shape), null)


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
