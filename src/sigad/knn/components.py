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

Transform = Literal["yeo-johnson"] | None
TRANSFORMS = ("yeo-johnson", None)

_ROWS = 500  # rows, at most, that a test of normality looks at: a large sample rejects what does no harm
_DRAWS = 499


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
        if transform not in TRANSFORMS:
            raise InvalidInputError(f"transform must be one of {TRANSFORMS}, not {transform!r}")
        kept = rows.std(axis=0) > 0
        if len(rows) < 3 or not kept.any():
            raise InvalidInputError(f"{len(rows)} rows with {kept.sum()} columns that vary: there is nothing to fit")
        first = rows[:, kept]
        centre, scale = [first.mean(axis=0)], [first.std(axis=0)]
        values, power = (first - centre[0]) / scale[0], None
        if transform is not None:
            from scipy import stats  # slow to import

            power = np.array([stats.yeojohnson_normmax(column) for column in values.T])
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
    """The transform of Yeo and Johnson (Biometrika 2000), monotone in each column."""
    from scipy import stats

    return np.stack([stats.yeojohnson(column, p) for column, p in zip(values.T, power, strict=True)], axis=1)


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
    return np.array([_kurtosis(rng.normal(size=(n, m))) for _ in range(_DRAWS)])


def _kurtosis(rows: NDArray[np.float64]) -> float:
    """Mean of the squared squared Mahalanobis distances from the mean."""
    basis = np.linalg.qr(rows - rows.mean(axis=0))[0]
    return float(np.square(len(rows) * np.square(basis).sum(axis=1)).mean())


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
