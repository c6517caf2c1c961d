"""Covariances of an image's noise that need no matrix."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.errors import InvalidInputError


class AutoregressiveCovariance:
    """Sigma_ij = variance * correlation^|i - j| over the pixels in row-major order, as an operator.

    ``covariance @ v`` takes O(n) for v (n,): a recursive filter forwards and one backwards.

    Parameters
    ----------
    correlation : of neighbours, in (-1, 1); 0.5 in the paper.
    variance : of a pixel, positive.
    """

    def __init__(self, correlation: float = 0.5, variance: float = 1.0):
        if not -1 < correlation < 1 or not 0 < variance < np.inf:
            raise InvalidInputError("correlation must lie in (-1, 1), and variance must be positive")
        self.correlation, self.variance = float(correlation), float(variance)

    def __repr__(self) -> str:
        return f"AutoregressiveCovariance(correlation={self.correlation}, variance={self.variance})"

    def __matmul__(self, vector: ArrayLike) -> NDArray[np.float64]:
        vector = np.asarray(vector, np.float64)
        forwards = self._filtered(vector)
        backwards = self._filtered(vector[::-1])[::-1]
        return self.variance * (forwards + backwards - vector)

    def color(self, white: ArrayLike) -> NDArray[np.float64]:
        """Noise of this covariance from standard normal noise, along the last axis, in order."""
        innovations = np.array(white, np.float64)
        innovations[..., 1:] *= np.sqrt(1 - self.correlation**2)
        return np.sqrt(self.variance) * self._filtered(innovations)

    def _filtered(self, values: NDArray) -> NDArray:
        """y_i = values_i + correlation * y_(i-1), along the last axis."""
        from scipy.signal import lfilter  # slow to import

        return lfilter([1.0], [1.0, -self.correlation], values, axis=-1)


Covariance = float | ArrayLike | AutoregressiveCovariance


def apply_covariance(covariance, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sigma v for v (n,).

    Parameters
    ----------
    covariance : a variance; (n,) variances; a symmetric positive definite matrix (n, n); or anything else that has
        ``covariance @ v`` (:class:`AutoregressiveCovariance`, scipy's LinearOperator).

    Raises
    ------
    InvalidInputError
        for shapes that do not fit, values that are not finite, or variances that are not positive.
    """
    n = len(vector)
    if not isinstance(covariance, np.ndarray) and hasattr(covariance, "__matmul__") and not hasattr(covariance, "cpu"):
        product = np.asarray(covariance @ vector, np.float64)
        if product.shape != (n,) or not np.isfinite(product).all():
            raise InvalidInputError(f"the covariance must map ({n},) to ({n},), finite")
        return product
    covariance = np.asarray(covariance, np.float64)
    if covariance.shape not in ((), (n,), (n, n)):
        raise InvalidInputError(
            f"covariance must be a variance, ({n},) variances, a ({n}, {n}) matrix or an operator with @, "
            f"not of shape {covariance.shape}"
        )
    if covariance.ndim == 2:
        # Some rows at a time, so that no second matrix is held. That the matrix is positive definite is not checked.
        for start in range(0, n, 64):
            rows, columns = covariance[start : start + 64], covariance[:, start : start + 64].T
            if not (np.isfinite(rows).all() and np.allclose(rows, columns, rtol=1e-8, atol=1e-12 * np.abs(rows).max())):
                raise InvalidInputError("the covariance matrix must be finite and symmetric")
        return covariance @ vector
    if not (np.isfinite(covariance).all() and (covariance > 0).all()):
        raise InvalidInputError("variances must be positive and finite")
    return covariance * vector
