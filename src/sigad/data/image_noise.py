"""Models of the noise of whole images: how normal images differ from each other, as covariances for a test.

Estimated on normal images of patients (or products) that serve for nothing else. A covariance here is an operator,
``covariance @ v``, that never needs an (n, n) matrix, with a log-likelihood by which one is chosen and a misfit that
says how far to trust it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array, whole_number
from sigad.data import patch_noise
from sigad.errors import InvalidInputError

KINDS = ("isotropic", "diagonal", "autoregressive", "shrunk", "components")


class ImageCovariance(ABC):
    """Sigma = scale^2 D K D over the n = C*H*W numbers of an image in row-major order, with D = diag(sd), sd (n,); the
    correlation K is the children's."""

    sd: NDArray[np.float64]
    scale: float

    @abstractmethod
    def correlate(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """K v for v (..., n)."""

    @abstractmethod
    def _root(self, white: NDArray[np.float64]) -> NDArray[np.float64]:
        """Noise with the correlation K from standard normal noise (n,)."""

    @abstractmethod
    def _white(self, v: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """K^(-1/2) v for v (m, n), up to a rotation, and log det K."""

    def __matmul__(self, vector: ArrayLike) -> NDArray[np.float64]:
        return self.scale**2 * self.sd * self.correlate(self.sd * np.asarray(vector, np.float64))

    def color(self, white: ArrayLike) -> NDArray[np.float64]:
        """Noise of this covariance from standard normal noise (n,)."""
        return self.scale * self.sd * self._root(np.asarray(white, np.float64))

    def whiten(self, deviations: ArrayLike) -> NDArray[np.float64]:
        """Sigma^(-1/2) times deviations (m, C, H, W) or (m, n) from the mean, up to a rotation, (m, n): standard normal
        under the model."""
        return self._whitened(deviations)[0]

    def log_likelihood(self, deviations: ArrayLike) -> NDArray[np.float64]:
        """Log density of deviations (m, C, H, W) from the mean, per number of an image, (m,)."""
        white, log_det = self._whitened(deviations)
        n = white.shape[1]
        log_det += 2 * (np.log(self.sd).sum() + n * np.log(self.scale))
        return -0.5 * (np.square(white).sum(-1) + log_det + n * np.log(2 * np.pi)) / n

    def _whitened(self, deviations: ArrayLike) -> tuple[NDArray[np.float64], float]:
        given = np.asarray(deviations, np.float64)
        return self._white(given.reshape(len(given), -1) / (self.scale * self.sd))


@dataclass(frozen=True)
class LowRank(ImageCovariance):
    """K = V' diag(values) V + diag(rest): what goes along a few directions V (r, n), and independent noise of variance
    ``rest`` (n,) in every number."""

    sd: NDArray[np.float64]
    directions: NDArray[np.float64]
    values: NDArray[np.float64]
    rest: NDArray[np.float64]
    scale: float = 1.0

    def correlate(self, v):
        return self.rest * v + ((v @ self.directions.T) * self.values) @ self.directions

    def _middle(self):
        """K = S (I + U'U) S with S = diag(rest)^(1/2): S, the right singular vectors B (r, n) of U, and the logarithms
        of the eigenvalues of I + U'U that belong to them."""
        root = np.sqrt(self.rest)
        _, singular, basis = np.linalg.svd(np.sqrt(self.values)[:, None] * self.directions / root, full_matrices=False)
        return root, basis, np.log1p(np.square(singular))

    def _root(self, white):
        root, basis, log = self._middle()
        return root * (white + (np.expm1(0.5 * log) * (white @ basis.T)) @ basis)

    def _white(self, v):
        root, basis, log = self._middle()
        v = v / root
        return v + (np.expm1(-0.5 * log) * (v @ basis.T)) @ basis, float(np.log(self.rest).sum() + log.sum())


@dataclass(frozen=True)
class KroneckerAutoregressive(ImageCovariance):
    """Correlation rows^|i - i'| columns^|j - j'| of the pixels (i, j) and (i', j'); channels are independent.

    ``shape`` (C, H, W) of an image.
    """

    sd: NDArray[np.float64]
    shape: tuple[int, int, int]
    rows: float
    columns: float
    scale: float = 1.0

    def correlate(self, v):
        image = v.reshape(*v.shape[:-1], *self.shape)
        return (_powers(self.rows, self.shape[1]) @ image @ _powers(self.columns, self.shape[2])).reshape(v.shape)

    def _root(self, white):
        down, right = (
            np.linalg.cholesky(_powers(correlation, n))
            for correlation, n in ((self.rows, self.shape[1]), (self.columns, self.shape[2]))
        )
        return (down @ white.reshape(self.shape) @ right.T).ravel()

    def _white(self, v):
        image = v.reshape(len(v), *self.shape)
        for correlation, axis in ((self.rows, 2), (self.columns, 3)):
            image = np.moveaxis(image, axis, -1)
            innovations = (image[..., 1:] - correlation * image[..., :-1]) / np.sqrt(1 - correlation**2)
            image = np.moveaxis(np.concatenate([image[..., :1], innovations], -1), -1, axis)
        c, h, w = self.shape
        log_det = c * (w * (h - 1) * np.log1p(-(self.rows**2)) + h * (w - 1) * np.log1p(-(self.columns**2)))
        return image.reshape(v.shape), float(log_det)


def estimate(images: ArrayLike, groups: Iterable[str], kind: str, *, components: int = 20) -> ImageCovariance:
    """Estimate the covariance of normal images.

    Parameters
    ----------
    images : (m, C, H, W) normal images, independent of those under test.
    groups : (m,) the patient of each one. Deviations from the mean of G patients are multiplied by G / (G - 1) in
        variance: images of one patient add little to what is known about the differences between patients.
    kind : ``"isotropic"``, one variance; ``"diagonal"``, one for each pixel, as for the following, whose correlations
        are: ``"autoregressive"``, powers of the distance in rows and columns; ``"shrunk"``, the sample correlation
        shrunk to the identity (Ledoit & Wolf 2004); ``"components"``, principal components and a diagonal.
    components : how many principal components there are at most.

    Pixels that hardly vary (outside of the brain) get a tenth of the usual standard deviation.

    Raises
    ------
    InvalidInputError
        for another kind, fewer than three patients, or images that do not vary.
    """
    (images, groups), components = _of_patients(images, groups), whole_number(components, "components", least=1)
    if kind not in KINDS:
        raise InvalidInputError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    count = len(np.unique(groups))
    x = images.reshape(len(images), -1)
    x = x - x.mean(0)
    variance = np.square(x).mean(0) * count / (count - 1)
    usual = float(variance.mean())
    if not usual > 0:
        raise InvalidInputError("the images do not vary: there is no noise to be estimated")
    varies = variance > _FLOOR**2 * usual
    sd = np.sqrt(np.where(varies, variance, _FLOOR**2 * usual))
    n = len(sd)
    independent = LowRank(sd, np.empty((0, n)), np.empty(0), np.ones(n))
    if kind == "isotropic":
        return replace(independent, sd=np.full(n, np.sqrt(usual)))
    if kind == "diagonal":
        return independent
    y = x / sd
    if kind == "autoregressive":
        return KroneckerAutoregressive(sd, images.shape[1:], *_neighbours(y.reshape(images.shape)))
    noise = patch_noise.estimate(x[:, varies], "shrunk" if kind == "shrunk" else "diagonal")
    if kind == "shrunk":
        basis, values, rest = noise.basis, noise.values - noise.rest, np.full(len(noise.sd), noise.rest)
    else:
        _, singular, basis = np.linalg.svd(y[:, varies], full_matrices=False)
        values, basis = np.square(singular[:components]) / len(y), basis[:components]
        rest = np.maximum(1 - values @ np.square(basis), _FLOOR)
    directions, everywhere = np.zeros((len(values), n)), np.ones(n)
    directions[:, varies], everywhere[varies] = basis, rest
    return LowRank(sd, directions, values, everywhere)


def _of_patients(images: ArrayLike, groups: Iterable[str]) -> tuple[NDArray[np.float64], NDArray]:
    """Images (m, C, H, W) and the patient of each, checked."""
    images, groups = real_array(images, "images"), np.asarray(list(groups))
    count = len(np.unique(groups))
    if images.ndim != 4 or groups.shape != images.shape[:1] or count < 3:
        raise InvalidInputError(
            f"a covariance needs images (m, C, H, W) of at least three groups, not {images.shape} of {count}"
        )
    return images, groups


class HeldOut(NamedTuple):
    """How a model of the noise does on patients that it has not seen.

    ``log_likelihood`` mean log density per number of an image; ``statistic`` (m, R), the means over R regions of the
    deviations of the m images, in standard errors of the model: of standard deviation 1, were it right.
    """

    log_likelihood: float
    statistic: NDArray[np.float64]

    @property
    def spread(self) -> float:
        """Root mean square of the statistic."""
        return float(np.sqrt(np.square(self.statistic).mean()))


def held_out(
    images: ArrayLike, groups: Iterable[str], kind: str, regions: ArrayLike, *, seed: int, folds: int = 5, **options
) -> HeldOut:
    """Estimate a model without each fifth of the patients in turn, and look at these.

    Parameters
    ----------
    images, groups, kind, options : as in :func:`estimate`.
    regions : (R, H, W) bool, not empty, that do not come from these images: the model is judged by the contrasts that
        a detector would test.
    seed : of the folds.
    folds : how many; no more than there are patients.
    """
    images, groups = _of_patients(images, groups)
    weights = contrasts(regions, images.shape[1:])
    seed, folds = whole_number(seed, "seed", least=0), whole_number(folds, "folds", least=2)
    patients = np.random.default_rng(seed).permutation(np.unique(groups))
    likelihood, statistic = np.empty(len(images)), np.empty((len(images), len(weights)))
    for out in np.array_split(patients, min(folds, len(patients))):
        out = np.isin(groups, out)
        covariance = estimate(images[~out], groups[~out], kind, **options)
        deviations = images[out] - images[~out].mean(0)
        likelihood[out] = covariance.log_likelihood(deviations)
        statistic[out] = standardised(covariance, deviations, weights)
    return HeldOut(float(likelihood.mean()), statistic)


def contrasts(regions: ArrayLike, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Weights (R, n) whose products with an image are its means over regions (R, H, W)."""
    regions = np.asarray(regions, bool)
    if regions.ndim != 3 or regions.shape[1:] != tuple(shape[1:]) or not regions.any((1, 2)).all():
        raise InvalidInputError(f"regions must be boolean of shape (R, {shape[1]}, {shape[2]}), none empty")
    weights = np.broadcast_to(regions[:, None], (len(regions), *shape)).reshape(len(regions), -1).astype(np.float64)
    return weights / weights.sum(1, keepdims=True)


def standardised(covariance: ImageCovariance, deviations: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """Weighted sums of deviations (m, C, H, W) with weights (R, n), divided by their standard errors, (m, R)."""
    variance = np.array([w @ (covariance @ w) for w in weights])
    return deviations.reshape(len(deviations), -1) @ weights.T / np.sqrt(variance)


def choose(
    images: ArrayLike, groups: Iterable[str], regions: ArrayLike, *, seed: int, kinds: Iterable[str] = KINDS, **options
) -> tuple[ImageCovariance, dict[str, HeldOut]]:
    """The model with the largest held-out likelihood, estimated on all images, and how every model did.

    Its scale is the held-out spread of the statistic, where that is larger than 1: what a model does not see of the
    differences between patients widens its standard errors.
    """
    images, groups, kinds = real_array(images, "images"), list(groups), list(kinds)
    if not kinds:
        raise InvalidInputError(f"kinds must name noise models to choose from, of {', '.join(KINDS)}")
    tried = {kind: held_out(images, groups, kind, regions, seed=seed, **options) for kind in kinds}
    best = max(tried, key=lambda kind: tried[kind].log_likelihood)
    chosen: Any = estimate(images, groups, best, **options)
    return replace(chosen, scale=max(1.0, tried[best].spread)), tried


_FLOOR = 0.1


def _powers(correlation: float, n: int) -> NDArray[np.float64]:
    return correlation ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))


def _neighbours(y: NDArray) -> tuple[float, float]:
    """Correlation of neighbours in rows and in columns of standardised images (m, C, H, W)."""
    square = np.square(y).mean()
    down, right = (y[:, :, 1:] * y[:, :, :-1]).mean() / square, (y[..., 1:] * y[..., :-1]).mean() / square
    return float(np.clip(down, -0.99, 0.99)), float(np.clip(right, -0.99, 0.99))
