"""A covariance that was estimated, and what it does to the null distribution: exactly, not as a plug-in.

With the scatter matrix S ~ Wishart_d(Sigma, nu) of rows used for nothing else, and a difference e ~ N(0, v Sigma) under
H0, condition on the direction of e and on r^2/v + g, where r = ||e|| and g = r^2 / (e' S^-1 e): then
(r^2/v) / (r^2/v + g) ~ Beta(d/2, (nu - d + 1)/2). The line along which e moves does not depend on Sigma or S, so that a
selection truncates this law as it truncates the chi law of a known covariance. Without selection it is Hotelling's F.

If only a scale is unknown, Sigma = sigma^2 Sigma_0 and SS ~ sigma^2 chi2_df, condition on u^2 + SS instead, u^2 =
e' (v Sigma_0)^-1 e: u^2 / (u^2 + SS) ~ Beta(d/2, df/2). Without selection it is an F, or a squared Student t.
docs/mathematics.md has the derivations.
"""

import copy

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array, whole_number
from sigad.errors import InvalidInputError
from sigad.inference.covariance import Covariance, check_matrix, solved, whitened


class EstimatedCovariance:
    """A covariance matrix estimated by the scatter of independent normal rows.

    Parameters
    ----------
    rows : (N, d) instances with one mean and the covariance in question, independent of everything else that enters the
        test: other rows fixed the threshold, the features and their standardisation. nu = N - 1.
    scatter, degrees_of_freedom : instead of rows, S (d, d), or (B, d, d) for B problems, and nu.

    Raises
    ------
    InvalidInputError : if nu < d, for then S has no inverse, or S is not a positive definite matrix.
    """

    def __init__(
        self,
        rows: ArrayLike | None = None,
        *,
        scatter: ArrayLike | None = None,
        degrees_of_freedom: int | None = None,
    ):
        if (rows is None) == (scatter is None) or (scatter is None) != (degrees_of_freedom is None):
            raise InvalidInputError("give either rows, or scatter and degrees_of_freedom")
        if rows is not None:
            rows = real_array(rows, "rows")
            if rows.ndim != 2 or not rows.size:
                raise InvalidInputError(f"rows must have shape (N, d), not {rows.shape}")
            centred = rows - rows.mean(axis=0)
            scatter, degrees_of_freedom = centred.T @ centred, len(rows) - 1
        scatter = real_array(scatter, "scatter")
        if scatter.ndim not in (2, 3) or scatter.shape[-1] != scatter.shape[-2] or not scatter.size:
            raise InvalidInputError(f"scatter must have shape (d, d) or (B, d, d), not {scatter.shape}")
        self.degrees_of_freedom = whole_number(degrees_of_freedom, "degrees_of_freedom", least=1)
        if self.degrees_of_freedom < scatter.shape[-1]:
            raise InvalidInputError(
                f"{self.degrees_of_freedom} degrees of freedom do not suffice for {scatter.shape[-1]} columns: "
                "estimate from more rows, test fewer components (sigad.knn.NormalModel), or estimate a scale only "
                "(EstimatedScale)"
            )
        self.scatter, self._factor = check_matrix(scatter)

    def __repr__(self) -> str:
        return f"EstimatedCovariance(d={self.dimension}, degrees_of_freedom={self.degrees_of_freedom})"

    __iter__ = None  # indexed without an end where all problems share it: numpy would collect its items for ever

    def __len__(self) -> int:
        """The number of problems that have a covariance of their own; 0 if all share one."""
        return len(self.scatter) if self.scatter.ndim == 3 else 0

    def __getitem__(self, which) -> "EstimatedCovariance":
        """The covariances of some of the problems."""
        if not len(self):
            return self
        part = copy.copy(self)
        part.scatter, part._factor = self.scatter[which], self._factor[which]
        return part

    @property
    def dimension(self) -> int:
        return self.scatter.shape[-1]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The estimate S / nu."""
        return self.scatter / self.degrees_of_freedom

    def standardised(self, difference: NDArray, factor: float) -> tuple[NDArray[np.float64], tuple]:
        """T = ||(v S/nu)^(-1/2) e|| for e (B, d) of covariance v Sigma, v = factor, and its null distribution."""
        d, nu = self.dimension, self.degrees_of_freedom
        if difference.shape[-1] != d:
            raise InvalidInputError(f"the covariance has {d} columns, the instances have {difference.shape[-1]}")
        t = np.sqrt(nu / factor * np.square(solved(self._factor, difference)).sum(axis=-1))
        return t, ("beta", d / 2, (nu - d + 1) / 2, np.hypot(t, np.sqrt(nu)))


class EstimatedScale:
    """A covariance sigma^2 Sigma_0 of known shape Sigma_0, whose scale sigma is estimated.

    Parameters
    ----------
    shape : Sigma_0, as a known covariance: a variance, variances, a matrix, or for images an operator with ``@``.
    rows : (N, d) instances with one mean and this covariance, independent of everything else that enters the test.
        Sigma_0 must then be a variance, variances or a matrix. df = (N - 1) d.
    sum_of_squares, degrees_of_freedom : instead of rows, SS ~ sigma^2 chi2_df (a number, or (B,)), and df.
    """

    def __init__(
        self,
        shape: Covariance,
        rows: ArrayLike | None = None,
        *,
        sum_of_squares: ArrayLike | None = None,
        degrees_of_freedom: int | None = None,
    ):
        if (rows is None) == (sum_of_squares is None) or (sum_of_squares is None) != (degrees_of_freedom is None):
            raise InvalidInputError("give either rows, or sum_of_squares and degrees_of_freedom")
        if rows is not None:
            rows = real_array(rows, "rows")
            if rows.ndim < 2 or not rows.size:
                raise InvalidInputError(f"rows must have shape (N, d), not {rows.shape}")
            rows = rows.reshape(len(rows), -1)
            white = whitened(rows - rows.mean(axis=0), shape)
            sum_of_squares, degrees_of_freedom = np.square(white).sum(), (len(rows) - 1) * rows.shape[1]
        self.shape = shape
        self.sum_of_squares = real_array(sum_of_squares, "sum_of_squares")
        self.degrees_of_freedom = whole_number(degrees_of_freedom, "degrees_of_freedom", least=1)
        if self.sum_of_squares.ndim > 1 or not (self.sum_of_squares > 0).all():
            raise InvalidInputError("sum_of_squares must be positive, a number or (B,)")

    def __repr__(self) -> str:
        return f"EstimatedScale(degrees_of_freedom={self.degrees_of_freedom})"

    __iter__ = None  # as above

    def __len__(self) -> int:
        """The number of problems that have a scale of their own; 0 if all share one."""
        return len(self.sum_of_squares) if self.sum_of_squares.ndim else 0

    def __getitem__(self, which) -> "EstimatedScale":
        """The scales of some of the problems."""
        if not len(self):
            return self
        part = copy.copy(self)
        part.sum_of_squares = self.sum_of_squares[which]
        return part

    @property
    def variance(self) -> NDArray[np.float64]:
        """The estimate of sigma^2."""
        return self.sum_of_squares / self.degrees_of_freedom

    def standardised(self, difference: NDArray, factor: float) -> tuple[NDArray[np.float64], tuple]:
        """T = ||(v sigma^2 Sigma_0)^(-1/2) e|| for e (B, d), v = factor, with the estimate of sigma, and its null."""
        t = np.sqrt(np.square(whitened(difference, self.shape)).sum(axis=-1) / (factor * self.variance))
        df = self.degrees_of_freedom
        return t, ("beta", difference.shape[-1] / 2, df / 2, np.hypot(t, np.sqrt(df)))


Estimated = EstimatedCovariance | EstimatedScale
