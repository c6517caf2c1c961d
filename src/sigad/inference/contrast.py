"""A linear statistic of the data, and the line on which nothing else that matters changes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.inference.covariance import Covariance, multiplication
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


def linear_contrast(weights: NDArray[np.float64], x: NDArray[np.float64], covariance: Covariance) -> Contrast:
    """The weighted sum of x (*shape), for weights (*shape) that are not all zero, with its standard error.

    x is normal with this covariance; section 1 of ``docs/mathematics.md``.
    """
    moved = multiplication(covariance, x.size)(weights.ravel())
    variance = float(weights.ravel() @ moved)
    if not variance > 0:
        raise InvalidInputError(
            "the contrast has no variance: it must not be all zero, and the covariance must be positive definite"
        )
    return Contrast(float(weights.ravel() @ x.ravel()), variance**0.5, (moved / variance**0.5).reshape(x.shape))
