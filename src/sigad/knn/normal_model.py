"""A kNN test that is fitted on normal rows: features, threshold and covariance from disjoint parts of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import labels, real_array, share, whole_number
from sigad.errors import InvalidInputError
from sigad.inference.estimated import EstimatedCovariance
from sigad.inference.result import BatchResult
from sigad.knn.against import Against, parse_against
from sigad.knn.components import Components, Transform, choose_components
from sigad.knn.detection import check_candidates, scores
from sigad.knn.neighbour import knn_test_batch


@dataclass(frozen=True, repr=False)
class NormalModel:
    """What a test needs to know about normality, learnt from normal rows, each of which serves one purpose only.

    >>> model = NormalModel.fit(normal_rows, k=range(1, 11))
    >>> result = model.test(new_rows)

    Attributes
    ----------
    features : transform, standardisation and principal components.
    threshold : of the anomaly score.
    covariance : of the components, estimated, with its degrees of freedom; the test is exact for that.
    pool : (n, m) components of the normal rows that new ones are compared with.
    candidates, against : the numbers of neighbours, and what is tested, as in :func:`sigad.knn.knn_test`.
    tails : p-values of normal tails of the first 1, 2, ... components that were looked at; empty if their number was
        given.
    """

    features: Components
    threshold: float
    covariance: EstimatedCovariance
    pool: NDArray[np.float64]
    candidates: tuple[int, ...]
    against: Against
    tails: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls,
        rows: ArrayLike,
        *,
        k: int | Sequence[int] = 5,
        components: int | Literal["auto"] = "auto",
        transform: Transform = "yeo-johnson",
        against: Against = "neighbourhood",
        quantile: float = 0.9,
        seed: int = 0,
    ) -> "NormalModel":
        """Fit on normal rows (N, D): columns of a table, pixels, or an embedding of images by any network.

        The rows are shuffled and cut into four parts of equal size: one for transform, standardisation and axes; one
        for threshold and number of components; one for the covariance; one to be compared with. So the p-values of new
        rows are exact if the components of a normal row are normal with one covariance.

        Parameters
        ----------
        k : number of neighbours, or candidates.
        components : how many principal components are tested; "auto" for as many as normal tails and degrees of freedom
            allow (:func:`~sigad.knn.components.choose_components`).
        transform : of each column, "yeo-johnson" or None.
        against : "neighbourhood" (the mean of as many nearest as the largest k), their number, or "neighbour".
        quantile : of the scores of normal rows beyond which a row is an anomaly.
        seed : of the shuffle.

        Raises
        ------
        InvalidInputError : too few rows for k or for the components, and arguments that are none of the above.
        """
        rows = real_array(rows, "rows")
        if rows.ndim != 2:
            raise InvalidInputError(f"rows must have shape (N, D), not {rows.shape}")
        quantile, seed = share(quantile, "quantile"), whole_number(seed, "seed", least=0)
        size = len(rows) // 4
        candidates = check_candidates(k, max(size - 1, 1))
        if size < 5:
            raise InvalidInputError(f"{len(rows)} rows are too few to be cut into four parts: 20 are the least")
        parse_against(against, candidates=candidates, n=size, condition_on_k=True)
        if not isinstance(components, str):
            components = whole_number(components, "components", least=1)
        elif components != "auto":
            raise InvalidInputError(f'components must be a number of them, or "auto", not {components!r}')
        order = np.random.default_rng(seed).permutation(len(rows))
        fitted, held_out, scattered, pool = (rows[part] for part in np.array_split(order, 4))
        features, tails = Components.fit(fitted, transform), []
        if components == "auto":
            components, tails = choose_components(features(held_out), len(scattered) - 1)
        features = features.first(components)
        threshold = _threshold(features(held_out), candidates, quantile)
        covariance = EstimatedCovariance(features(scattered))
        return cls(features, threshold, covariance, features(pool), candidates, against, tuple(tails))

    @classmethod
    def out_of_fold(
        cls, rows: ArrayLike, *, folds: int = 5, groups: ArrayLike | None = None, seed: int = 0, **settings: Any
    ) -> NDArray[np.float64]:
        """P-values (N,) of normal rows (N, D), each by a model that was fitted without its fold; NaN if not detected.

        What :func:`sigad.judge` needs to say, before anything is inspected, whether the p-values of these settings may
        be trusted on rows like these: all that it looks at are normal rows. Models see (1 - 1/folds) of them, and those
        of a fold share a model.

        Parameters
        ----------
        folds : disjoint parts, of which each is tested once; between 2 and N.
        groups : (N,) labels (whole numbers or text) that say whose each row is, as in :func:`sigad.judge`: rows of a
            group fall into one fold, so that no model has seen a part of what it tests.
        seed : of the folds, and of the models.
        settings : as in :meth:`fit`.

        Raises
        ------
        InvalidInputError : as in :meth:`fit`, and for folds that are none.
        """
        rows = real_array(rows, "rows")
        if rows.ndim != 2:
            raise InvalidInputError(f"rows must have shape (N, D), not {rows.shape}")
        seed, folds = whole_number(seed, "seed", least=0), whole_number(folds, "folds", least=2)
        whose = np.arange(len(rows)) if groups is None else labels(groups, "groups", len(rows))
        names, result = np.unique(whose), np.empty(len(rows))
        if folds > len(names):
            what = "rows" if groups is None else "groups"
            raise InvalidInputError(f"{len(names)} {what} cannot be cut into {folds} folds")
        for fold in np.array_split(np.random.default_rng(seed).permutation(len(names)), folds):
            tested = np.isin(whose, names[fold])
            result[tested] = cls.fit(rows[~tested], seed=seed, **settings).test(rows[tested]).p_value
        return result

    def __repr__(self) -> str:
        n, m = self.pool.shape
        tails = ", ".join(f"{p:.3g}" for p in self.tails)
        return (
            f"NormalModel({m} components, {self.covariance.degrees_of_freedom} degrees of freedom, {n} rows to compare "
            f"with{', p-values of normal tails: ' * bool(tails)}{tails})"
        )

    def test(self, rows: ArrayLike) -> BatchResult:
        """Detect and test new rows (B, D), each by itself; a :class:`~sigad.inference.result.BatchResult`.

        They share pool, threshold and covariance, so that their p-values are not independent.
        """
        rows = real_array(rows, "rows")
        if rows.ndim != 2 or rows.shape[1] != len(self.features.kept):
            raise InvalidInputError(f"rows must have shape (B, {len(self.features.kept)}), not {rows.shape}")
        return knn_test_batch(
            self.features(rows),
            self.pool,
            k=self.candidates,
            threshold=self.threshold,
            covariance=self.covariance,
            against=self.against,
        )


def _threshold(features: NDArray[np.float64], candidates: tuple[int, ...], quantile: float) -> float:
    """Quantile of the scores of normal rows, each against all others."""
    from scipy.spatial import KDTree  # slow to import

    distances = KDTree(features).query(features, k=np.arange(2, candidates[-1] + 2))[0]
    best = scores(distances, candidates, features.shape[1]).max(axis=1)
    # A row with copies has the score -inf, which is no number to interpolate with.
    return float(np.quantile(best, quantile, method="higher"))
