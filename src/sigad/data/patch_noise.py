"""Models of the noise of instances with many dimensions, estimated on independent normal instances.

A model is a mean and a covariance S (V diag(values) V' + rest (I - V V')) S with S = diag(sd): a diagonal, or a few
directions and one variance for all others. It never needs a (d, d) matrix, so that d may be thousands.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.errors import InvalidInputError

NoiseKind = Literal["isotropic", "diagonal", "shrunk"]
NOISE_KINDS = ("isotropic", "diagonal", "shrunk")


@dataclass(frozen=True)
class Noise:
    """A normal distribution of instances in d dimensions.

    Attributes
    ----------
    mean : (d,).
    sd : (d,) standard deviations.
    basis : (r, d) orthonormal directions of the standardised instances.
    values : (r,) their variances.
    rest : variance of all directions orthogonal to them.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    basis: NDArray[np.float64]
    values: NDArray[np.float64]
    rest: float

    def whiten(self, difference: ArrayLike) -> NDArray[np.float64]:
        """Covariance^(-1/2) times differences (..., d) of instances, up to a rotation."""
        return self._apply(np.asarray(difference, np.float64) / self.sd, -0.5)

    def statistic(self, difference: ArrayLike, factor: float = 2.0) -> NDArray[np.float64]:
        """The test statistic || (factor Sigma)^(-1/2) difference || of differences (..., d), by default of two
        instances."""
        return np.sqrt(np.square(self.whiten(difference)).sum(axis=-1) / factor)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Instances (size, d) of this distribution."""
        return self.mean + self._apply(rng.normal(size=(size, len(self.mean))), 0.5) * self.sd

    def covariance(self) -> NDArray[np.float64]:
        """The covariance as a matrix (d, d): for small d."""
        inner = self.basis.T @ ((self.values - self.rest)[:, None] * self.basis) + self.rest * np.eye(len(self.sd))
        return self.sd[:, None] * inner * self.sd

    def _apply(self, x: NDArray, power: float) -> NDArray:
        along = x @ self.basis.T
        return (x - along @ self.basis) * self.rest**power + (along * self.values**power) @ self.basis


def estimate(x: ArrayLike, kind: NoiseKind) -> Noise:
    """Estimate the noise of normal instances.

    Parameters
    ----------
    x : (m, d) normal instances, independent of those under test.
    kind : ``"isotropic"``, one variance for all dimensions; ``"diagonal"``, one for each; ``"shrunk"``, the sample
        correlation shrunk towards the identity (Ledoit & Wolf 2004), with variances of their own. Chosen: the paper is
        silent on how the covariance of image patches is estimated.

    Raises
    ------
    InvalidInputError
        for fewer than three instances, or dimensions in which they do not vary (``"isotropic"``: none vary).
    """
    x = np.asarray(x, np.float64)
    if kind not in NOISE_KINDS:
        raise InvalidInputError(f"the noise model must be one of {', '.join(NOISE_KINDS)}, not {kind!r}")
    if x.ndim != 2 or len(x) < 3 or not np.isfinite(x).all():
        raise InvalidInputError(f"a noise model needs finite instances (m, d), at least three, not {x.shape}")
    m, d = x.shape
    mean = x.mean(axis=0)
    variance = np.square(x - mean).sum(axis=0) / (m - 1)
    if kind == "isotropic":
        variance = np.full(d, variance.mean())
    if not (variance > 0).all():
        raise InvalidInputError(
            f"{np.count_nonzero(variance <= 0)} of {d} dimensions do not vary among the {m} instances: use the "
            "isotropic noise model, or more instances"
        )
    sd = np.sqrt(variance)
    if kind != "shrunk":
        return Noise(mean, sd, np.empty((0, d)), np.empty(0), 1.0)
    y = (x - mean) / sd
    # Eigenvectors of the sample correlation from the m x m matrix of inner products: all that is not zero.
    gram, vectors = np.linalg.eigh(y @ y.T)
    keep = gram > 1e-10 * gram[-1]
    values, basis = gram[keep] / (m - 1), (vectors[:, keep] / np.sqrt(gram[keep])).T @ y
    share = _shrinkage(y, gram[keep] / m)
    return Noise(mean, sd, basis, (1 - share) * values + share, share)


def _shrinkage(y: NDArray, values: NDArray) -> float:
    """The weight of the identity that minimises the expected squared error of the correlation (Ledoit & Wolf 2004).

    ``y`` (m, d) standardised instances, ``values`` the eigenvalues of y'y / m that are not zero.
    """
    m, d = y.shape
    average = values.sum() / d
    squared = np.square(values).sum()
    distance = squared - d * average**2
    error = (np.square(np.square(y).sum(axis=1)).sum() / m - squared) / m
    # Some weight always stays on the identity: with m <= d the sample correlation alone is singular.
    return float(np.clip(error / distance, 1e-3, 1.0)) if distance > 0 else 1.0
