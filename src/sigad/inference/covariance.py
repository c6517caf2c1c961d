"""Covariances of noise: one check for all tests, and products that need no matrix."""

from collections.abc import Callable
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array
from sigad.errors import InvalidInputError

# Dimension above which one covariance for all rows is not solved for each of them by a general method.
_LARGE = 64


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


class Operator(Protocol):
    """A covariance that is known by its products: :class:`AutoregressiveCovariance`, or scipy's LinearOperator."""

    def __matmul__(self, vector: NDArray[np.float64], /) -> ArrayLike: ...


Covariance = float | ArrayLike | Operator


def is_operator(covariance: Covariance) -> TypeGuard[Operator]:
    """Whether it is known by its products only: arrays, tensors and frames have products too, and are checked."""
    products = hasattr(covariance, "__matmul__") and not isinstance(covariance, type)
    return products and not hasattr(covariance, "__array__")


def check_variances(variances: ArrayLike) -> NDArray[np.float64]:
    """Variances, of any shape; raises InvalidInputError unless all are positive and finite."""
    variances = real_array(variances, "covariance")
    if not (variances > 0).all():
        raise InvalidInputError("variances must be positive: drop constant columns or add noise of known variance")
    return variances


def check_matrix(covariance: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A covariance matrix (..., d, d), made exactly symmetric, and its Cholesky factor.

    Raises InvalidInputError unless it is finite, symmetric up to rounding, and positive definite.
    """
    covariance = real_array(covariance, "covariance")
    transposed = np.swapaxes(covariance, -1, -2)
    # Rounding is relative to the standard deviations of the two numbers, not to an entry that may cancel to nothing.
    deviation = np.sqrt(np.abs(np.diagonal(covariance, axis1=-2, axis2=-1)))
    scale = deviation[..., :, None] * deviation[..., None, :]
    if not (np.abs(covariance - transposed) <= 1e-8 * scale).all():
        raise InvalidInputError("the covariance matrix must be symmetric")
    covariance = (covariance + transposed) / 2
    try:
        return covariance, np.asarray(np.linalg.cholesky(covariance), np.float64)
    except np.linalg.LinAlgError as error:
        raise InvalidInputError(
            "the covariance matrix must be positive definite: drop columns that depend on others, or shrink it"
        ) from error


def whitened(rows: NDArray[np.float64], covariance: Covariance) -> NDArray[np.float64]:
    """Each row v of (B, d) as L^-1 v with L L' = Sigma: its length is (v' Sigma^-1 v)^(1/2).

    Parameters
    ----------
    rows : (B, d).
    covariance : Sigma, a scalar (variance), (d,) (variances), (d, d), or (B, d, d) one per row.

    Raises
    ------
    InvalidInputError
        for shapes that do not fit, NaN, a covariance that is not positive definite, or an operator.
    """
    b, d = rows.shape
    covariance = real_array(covariance, "covariance")
    if covariance.ndim == 0 or covariance.shape == (d,):
        return rows / np.sqrt(check_variances(covariance))
    if covariance.shape not in ((d, d), (b, d, d)):
        raise InvalidInputError(
            f"covariance must be a scalar, ({d},), ({d}, {d}) or (B, {d}, {d}), not {covariance.shape}"
        )
    return solved(check_matrix(covariance)[1], rows)


def solved(factor: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """L^-1 v for each row v of (B, d), with lower triangular factors L (d, d) or (B, d, d)."""
    if factor.ndim == 2 and len(factor) > _LARGE:
        from scipy import linalg  # slow to import

        return np.stack([linalg.solve_triangular(factor, row, lower=True) for row in rows])
    factors = np.broadcast_to(factor, (len(rows), *factor.shape[-2:]))
    return np.asarray(np.linalg.solve(factors, rows[..., None])[..., 0], np.float64)


def multiplication(covariance: Covariance, n: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The function v -> Sigma v for v (n,), once the covariance has been checked.

    Parameters
    ----------
    covariance : a variance; (n,) variances; a symmetric positive definite matrix (n, n); or anything else that has
        ``covariance @ v`` (:class:`AutoregressiveCovariance`, scipy's LinearOperator), whose definiteness cannot be
        seen: its products are checked instead.

    Raises
    ------
    InvalidInputError
        for shapes that do not fit, values that are not finite, or a covariance that is not positive definite.
    """
    if is_operator(covariance):

        def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            try:
                product = np.asarray(covariance @ vector, np.float64)
            except Exception as error:
                raise InvalidInputError(
                    f"the covariance failed to multiply {n} numbers: {type(error).__name__}: {error}"
                ) from error
            if product.shape != (n,) or not np.isfinite(product).all():
                raise InvalidInputError(f"the covariance must map ({n},) to ({n},), finite")
            return product

        multiply(np.zeros(n))
        return multiply
    array = real_array(covariance, "covariance")
    if array.shape not in ((), (n,), (n, n)):
        raise InvalidInputError(
            f"covariance must be a variance, ({n},) variances, a ({n}, {n}) matrix or an operator with @, "
            f"not of shape {array.shape}"
        )
    if array.ndim == 2:
        matrix, _ = check_matrix(array)
        return lambda vector: matrix @ vector
    array = check_variances(array)
    return lambda vector: array * vector


def noise(covariance: Covariance, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Normal noise of a covariance, one independent draw for each instance.

    Parameters
    ----------
    covariance : a variance, for any shape; (n,) variances or an (n, n) matrix of the n numbers of an instance, which
        are the last axes of the shape in row-major order; or an operator that can ``color`` standard normal noise (n,)
        of a single instance, such as :class:`AutoregressiveCovariance`: the shape is then that of one.
    shape : of the result.

    Raises
    ------
    InvalidInputError
        for a shape that does not fit, or a covariance that is not positive definite or known by its products only.
    """
    white = rng.standard_normal(shape)
    color = getattr(covariance, "color", None)
    if color is not None:
        return color(white.ravel()).reshape(shape)
    if is_operator(covariance):
        raise InvalidInputError("noise cannot be drawn from the products of a covariance: pass a matrix or variances")
    covariance = real_array(covariance, "covariance")
    if covariance.ndim == 0:
        return np.sqrt(check_variances(covariance)) * white
    sizes = np.cumprod([1, *shape[::-1]]).tolist()
    if covariance.ndim > 2 or len(covariance) not in sizes:
        raise InvalidInputError(f"a covariance of shape {covariance.shape} does not fit instances of shape {shape}")
    rows = white.reshape(-1, len(covariance))
    if covariance.ndim == 1:
        return (np.sqrt(check_variances(covariance)) * rows).reshape(shape)
    return (rows @ check_matrix(covariance)[1].T).reshape(shape)
