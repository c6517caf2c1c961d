"""Features as data: a monotone transform of each column to normality, and principal components, fitted on normal rows.

The tests of :mod:`sigad.knn` assume normal noise in the space of the instances. Raw columns are skewed and have heavy
tails; what is tested may just as well be a few components of transformed columns, of the pixels of an image, or of an
embedding of it by any network. The assumption moves from the columns to these features.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.knn.detection import blocks

Transform = Literal["yeo-johnson"] | None
TRANSFORMS = ("yeo-johnson", None)

_ROWS = 500  # rows, at most, that a test of normality looks at: a large sample rejects what does no harm
_DRAWS = 499
_STEEPEST = 10.0  # exponents are looked for in [-10, 12]; standardised columns have some between -3 and 5
_FINEST = 1e-6  # to which they are found; one that is closer to 0, where the formulas divide by it, is taken for this


@dataclass(frozen=True)
class Components:
    """Rows (N, D) to components (N, m): standardise, transform, standardise, project.

    ``kept`` (D,) the columns that varied where it was fitted; ``power`` (D',) exponents of Yeo and Johnson, or None;
    ``centre``, ``scale`` (2, D') of both standardisations; ``axes`` (D', m) orthonormal, largest variance first.
    """

    kept: NDArray[np.bool_]
    power: NDArray[np.float64] | None
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def fit(cls, rows: NDArray[np.float64], transform: Transform) -> "Components":
        """All components of the rows (N, D), as many as there are: min(N - 1, D)."""
        if not isinstance(transform, str | None) or transform not in TRANSFORMS:
            raise InvalidInputError(f"transform must be one of {TRANSFORMS}, not {transform!r}")
        kept = rows.std(axis=0) > 0
        if len(rows) < 3 or not kept.any():
            raise InvalidInputError(f"{len(rows)} rows with {kept.sum()} columns that vary: there is nothing to fit")
        first = rows[:, kept]
        centre, scale = [first.mean(axis=0)], [first.std(axis=0)]
        values, power = (first - centre[0]) / scale[0], None
        if transform is not None:
            power = _likeliest_power(values)
            values = _yeo_johnson(values, power)
        centre.append(values.mean(axis=0))
        scale.append(np.where(values.std(axis=0) > 0, values.std(axis=0), 1.0))
        values = (values - centre[1]) / scale[1]
        axes = np.linalg.svd(values, full_matrices=False)[2][: len(rows) - 1].T
        return cls(kept, power, np.stack(centre), np.stack(scale), axes)

    def first(self, m: int) -> "Components":
        """Only the first m components."""
        if not 1 <= m <= self.axes.shape[1]:
            raise InvalidInputError(f"there are {self.axes.shape[1]} components: components must not be {m!r}")
        return replace(self, axes=self.axes[:, :m])

    def __call__(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        values = (rows[:, self.kept] - self.centre[0]) / self.scale[0]
        if self.power is not None:
            values = _yeo_johnson(values, self.power)
        # Row by row, so that equal rows get equal features whatever else is in the batch.
        return (self.axes.T @ ((values - self.centre[1]) / self.scale[1])[..., None])[..., 0]


def _yeo_johnson(values: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transform of Yeo and Johnson (Biometrika 2000), monotone in each column; values (N, D), power (D,)."""
    size, exponent = np.log1p(np.abs(values)), np.where(values >= 0, power, 2 - power)
    curved = exponent != 0
    grown = np.where(curved, np.expm1(exponent * size) / np.where(curved, exponent, 1.0), size)
    return np.where(values >= 0, grown, -grown)


def _likeliest_power(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exponent of each standardised column, (D,), under which its transform is likeliest to be normal, to 1e-6.

    The logarithm of the likelihood is concave in the exponent (Marchand et al., NeurIPS 2022): Newton's method, and
    bisection where that leaves the interval that holds the maximum; for all columns at once.
    """
    columns = np.ascontiguousarray(values.T)
    sign, size = np.where(columns < 0, -1.0, 1.0), np.log1p(np.abs(columns))
    logs = (sign * size).mean(axis=1)
    low, high = np.full(len(columns), -_STEEPEST), np.full(len(columns), 2 + _STEEPEST)
    power, step = np.ones(len(columns)), np.ones(len(columns))
    while np.abs(step).max() > _FINEST:
        exponent = 1 + sign * (power[:, None] - 1)
        exponent[np.abs(exponent) < _FINEST] = _FINEST
        # The transform and its first two derivatives with respect to the power.
        grown = np.expm1(exponent * size) / exponent
        steep = size * (exponent * grown + 1)
        first = (steep - grown) / exponent
        second = sign * (size * steep - 2 * first) / exponent
        away = sign * grown
        away -= away.mean(axis=1, keepdims=True)
        first -= first.mean(axis=1, keepdims=True)
        square, change = _products(away, away), _products(away, first)
        slope = logs - change / square
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = slope / ((_products(first, first) + _products(away, second)) / square - 2 * (change / square) ** 2)
        low, high = np.where(slope > 0, power, low), np.where(slope > 0, high, power)
        to = power + newton
        step = np.where((low < to) & (to < high) | (np.abs(newton) <= _FINEST), newton, (low + high) / 2 - power)
        power = power + step
    return power


def _products(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner product of each row of one with that of the other."""
    return np.einsum("dn,dn->d", a, b)


def excess_kurtosis_pvalue(rows: NDArray[np.float64]) -> float:
    """p-value of Mardia's multivariate kurtosis (Biometrika 1970) against heavier tails than the normal ones.

    Its null distribution, which depends on neither mean nor covariance, is simulated, with the same draws each time. At
    most the first 500 rows (N, m) are looked at, N > m.
    """
    rows = rows[:_ROWS]
    if len(rows) <= rows.shape[1]:
        raise InvalidInputError(f"{len(rows)} rows do not suffice to look at the tails of {rows.shape[1]} components")
    return float((1 + np.sum(_null_kurtosis(*rows.shape) >= _kurtosis(rows))) / (1 + _DRAWS))


@lru_cache(maxsize=64)
def _null_kurtosis(n: int, m: int) -> NDArray[np.float64]:
    """Kurtosis of n normal rows with m columns, drawn (_DRAWS,) times."""
    rng = np.random.default_rng((n, m))
    sizes = [block.stop - block.start for block in blocks(_DRAWS, n * m)]
    return np.concatenate([_kurtosis(rng.normal(size=(size, n, m))) for size in sizes])


def _kurtosis(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the squared squared Mahalanobis distances from the mean, of rows (..., n, m)."""
    basis = np.linalg.qr(rows - rows.mean(axis=-2, keepdims=True))[0]
    return np.square(rows.shape[-2] * np.square(basis).sum(axis=-1)).mean(axis=-1)


def choose_components(
    rows: NDArray[np.float64], degrees_of_freedom: int, *, level: float = 0.1
) -> tuple[int, list[float]]:
    """How many of the components (columns of rows, (N, M)) to test, from normal rows of their own.

    The largest m for which the covariance is estimated with at least 2 m degrees of freedom, and for which no number of
    components up to m has tails that are heavier than normal ones at this level (:func:`excess_kurtosis_pvalue`); at
    least one.

    Returns m and the p-values of the tails for 1, 2, ... components, up to the first that is below the level.
    """
    tails: list[float] = []
    for m in range(1, min(rows.shape[1], degrees_of_freedom // 2, len(rows) - 1) + 1):
        tails.append(excess_kurtosis_pvalue(rows[:, :m]))
        if tails[-1] < level:
            break
    passed = [p >= level for p in tails]
    return max(1, sum(passed)), tails
