"""Does a test's p-value hold on these data? What normal instances that nothing else has seen say about it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array, real_number, share
from sigad.errors import InvalidInputError, SigadError
from sigad.inference.covariance import Covariance, is_operator, multiplication, whitened
from sigad.inference.estimated import Estimated
from sigad.optional import needs

Verdict = Literal["holds", "undecided", "refused"]

OFF = 0.01
"""A noise model is called off where data as far from it have less than this probability under it."""

FEWEST = 8
"""Fewer pairs than this say nothing about a noise model."""


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found.

    Attributes
    ----------
    verdict : ``"holds"``, ``"undecided"`` (too few detected normals to tell) or ``"refused"``.
    n_normals, n_pairs : instances given, and disjoint pairs of them.
    variance_ratio : mean square of the whitened differences of pairs, 1 under the model: the factor by which the
        covariance is too small.
    dispersion : variance of the squared lengths of these differences, relative to the model's: 1 under it, more with
        heavy tails, instances that vary more than others, or correlations that the model lacks.
    excess_kurtosis : of the whitened differences, 0 under the model.
    model_p_value : Anderson-Darling test of the lengths of these differences against their chi law, which looks at the
        tails; at least 0.001.
    n_detected, n_rejected : of the normal instances, by the test; 0 without one.
    type1, type1_low, type1_high : share of the detected normals that the test rejects at level alpha, with its exact
        (Clopper-Pearson) 95 % interval; NaN and [0, 1] where none was detected.
    alpha, refusal : level of the test, and the rate that must not be exceeded.
    residuals : (n_pairs, n) whitened differences, standard normal under the model.
    p_values : (n_normals,) of the test, NaN where it did not detect; empty without a test.
    """

    verdict: Verdict
    n_normals: int
    n_pairs: int
    variance_ratio: float
    dispersion: float
    excess_kurtosis: float
    model_p_value: float
    n_detected: int
    n_rejected: int
    type1: float
    type1_low: float
    type1_high: float
    alpha: float
    refusal: float
    residuals: NDArray[np.float64] = field(repr=False)
    p_values: NDArray[np.float64] = field(repr=False)

    @property
    def words(self) -> str:
        """The verdict and its reasons in sentences."""
        off = self.model_p_value < OFF
        model = (
            f"The noise model {'does not describe' if off else 'is not contradicted by'} these normals: squared "
            f"differences are {self.variance_ratio:.2f} times as large as it says and vary {self.dispersion:.2f} times "
            f"as much (p = {self.model_p_value:.2g}, {self.n_pairs} pairs)."
        )
        if not len(self.p_values):
            if off:
                return f"{model} Do not trust a p-value that assumes it: conformal p-values hold whatever the noise is."
            return (
                f"{model} That alone is no reason to trust a p-value: give a test, to see how often it rejects normals."
            )
        rate = (
            f"Of {self.n_detected} detected normals the test rejects {self.n_rejected} at level {self.alpha:g} "
            f"(95 % interval {self.type1_low:.3f} to {self.type1_high:.3f})"
        )
        reason = {
            "refused": "more than it may: do not use its p-values here. Conformal p-values hold whatever the noise is.",
            "undecided": f"too few to exclude a rate above {self.refusal:g}: give more normals.",
            "holds": f"which excludes a rate above {self.refusal:g}.",
        }[self.verdict]
        return f"{model} {rate}, {reason}"

    def __str__(self) -> str:
        return f"{self.verdict}. {self.words}"

    def to_frame(self):
        """One row of a pandas DataFrame: every number, not the arrays."""
        with needs("pipeline"):
            import pandas as pd

        return pd.DataFrame([{k: v for k, v in asdict(self).items() if not isinstance(v, np.ndarray)}])

    def plot(self):
        """A figure: whitened differences against N(0, 1), and p-values of detected normals against U(0, 1). Returns
        the matplotlib Figure; nothing is shown or saved."""
        with needs("pipeline"):
            from matplotlib.figure import Figure
        from scipy import special

        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        levels = (np.arange(200) + 0.5) / 200
        left.plot(special.ndtri(levels), np.quantile(self.residuals, levels), color="#0072B2")
        left.set(xlabel="quantile of N(0, 1)", ylabel="whitened differences")
        found = self.p_values[~np.isnan(self.p_values)]
        if len(found):
            right.plot(levels, np.quantile(found, levels), color="#D55E00")
        right.set(xlabel="quantile of U(0, 1)", ylabel="p-values of detected normals", title=self.verdict)
        for axis, end in ((left, 2.8), (right, 1.0)):
            axis.plot([-end if axis is left else 0, end], [-end if axis is left else 0, end], "--", color="0.4", lw=0.8)
        return figure


def diagnose(
    normals: ArrayLike,
    *,
    covariance: Covariance | Any,
    within: ArrayLike | None = None,
    test: Callable[[NDArray[np.float64]], Any] | None = None,
    alpha: float = 0.05,
    refusal: float | None = None,
) -> Diagnosis:
    """How far a noise model is off on normal instances, how often a test rejects them, and a verdict.

    Differences of disjoint pairs have twice the covariance and no mean, whatever the mean is: whitened, their
    coordinates are standard normal and their lengths chi under the model. The test is run on each instance; of the
    detected ones it may reject the share alpha.

    The verdict is ``"refused"`` where the interval of that share lies above alpha: the test is shown to be invalid on
    these data. It ``"holds"`` where the interval excludes rates above ``refusal``. Without a test, only the noise model
    is looked at, and the verdict is "refused" or "undecided". The interval is exact given the test (its training
    instances, covariance and threshold): it says how this test does, not how another calibration would.

    Parameters
    ----------
    normals : (m, *shape) normal rows, patches or images, used for nothing else: neither for covariance, threshold or
        training, nor to choose among tests.
    covariance : of one instance, as the test gets it: a variance, (n,) variances, an (n, n) matrix, or an object that
        has ``whiten`` (such as :class:`~sigad.data.patch_noise.Noise`). Of an estimate, the ``matrix``.
    within : mask, of the shape of an instance or of its last axes: the noise model is only compared with these numbers,
        such as the pixels of the brain (``setup.detector.within``). The test sees whole instances.
    test : from an instance (*shape) to its result, or its p-value (NaN where nothing was detected):
        ``lambda x: knn_test(x, x_train, ...)``.
    alpha : level of the test.
    refusal : the rate that must be excluded for ``"holds"``, at least alpha; twice alpha by default.

    Raises
    ------
    InvalidInputError
        for fewer than 16 instances, NaN, a covariance that is not one, or a test that fails on an instance or gives
        anything but a p-value in [0, 1]; or a mask that is none or empty.
    """
    normals = real_array(normals, "normals")
    if normals.ndim < 2 or len(normals) < 2 * FEWEST or not normals.size:
        raise InvalidInputError(
            f"normals must have shape (m, ...) with at least {2 * FEWEST} instances, not {normals.shape}"
        )
    alpha = share(alpha, "alpha")
    refusal = min(2 * alpha, 1.0) if refusal is None else real_number(refusal, "refusal")
    if not alpha <= refusal <= 1:
        raise InvalidInputError(f"refusal must lie between alpha = {alpha:g} and 1, not {refusal:g}")
    if test is not None and not callable(test):
        raise InvalidInputError(
            f"test must be a function of an instance, such as lambda x: knn_test(x, ...), not {type(test).__name__}"
        )
    from scipy import stats  # slow to import

    residuals = _whitened_pairs(normals, covariance, _mask(within, normals.shape[1:]))
    lengths = np.square(residuals).sum(axis=1)
    n = residuals.shape[1]
    p_values = np.array([_p_value(test, x) for x in normals] if test is not None else [])
    found = p_values[~np.isnan(p_values)]
    rejected = int((found <= alpha).sum())
    low, high = stats.binomtest(rejected, len(found)).proportion_ci(0.95, "exact") if len(found) else (0.0, 1.0)
    model_p = _anderson_darling(stats.chi2(n).logcdf(lengths), stats.chi2(n).logsf(lengths))
    if test is None:
        verdict: Verdict = "refused" if model_p < OFF else "undecided"
    else:
        verdict = "refused" if low > alpha else "holds" if high <= refusal else "undecided"
    return Diagnosis(
        verdict=verdict,
        n_normals=len(normals),
        n_pairs=len(residuals),
        variance_ratio=float(lengths.mean() / n),
        dispersion=float(lengths.var(ddof=1) / (2 * n)),
        excess_kurtosis=float(stats.kurtosis(residuals, axis=None)),
        model_p_value=model_p,
        n_detected=len(found),
        n_rejected=rejected,
        type1=rejected / len(found) if len(found) else float("nan"),
        type1_low=float(low),
        type1_high=float(high),
        alpha=alpha,
        refusal=refusal,
        residuals=residuals,
        p_values=p_values,
    )


def _mask(within: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """The mask for the numbers of an instance in order, or None for all of them."""
    if within is None:
        return None
    mask = np.asarray(within)
    if mask.dtype != bool or mask.ndim == 0 or mask.shape != shape[-mask.ndim :] or not mask.any():
        raise InvalidInputError(
            f"within must be a boolean mask of the shape of an instance, {shape}, with something in it, not "
            f"{mask.dtype} {mask.shape}"
        )
    return None if mask.all() else np.broadcast_to(mask, shape).ravel()


def _among(covariance: Any, mask: NDArray[np.bool_]) -> Any:
    """The covariance of some of the numbers of an instance."""
    if hasattr(covariance, "whiten") and not is_operator(covariance):
        raise InvalidInputError("a covariance without products cannot be restricted to a mask: pass its matrix")
    multiply = multiplication(covariance, len(mask))
    if is_operator(covariance):
        return np.stack([multiply(column)[mask] for column in np.eye(len(mask))[mask]])
    array = np.asarray(covariance, np.float64)
    return array if array.ndim == 0 else array[mask] if array.ndim == 1 else array[mask][:, mask]


def _whitened_pairs(
    normals: NDArray[np.float64], covariance: Any, mask: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Differences of disjoint pairs, standard normal under the model, (m // 2, n)."""
    pairs = normals[: len(normals) // 2 * 2].reshape(-1, 2, normals[0].size)
    difference = (pairs[:, 0] - pairs[:, 1]) / np.sqrt(2)
    if isinstance(covariance, Estimated):
        raise InvalidInputError("an estimate is no covariance to compare with: pass its matrix, or its variance")
    if mask is not None:
        return whitened(difference[:, mask], _among(covariance, mask))
    if hasattr(covariance, "whiten"):
        return covariance.whiten(difference)
    if is_operator(covariance):
        raise InvalidInputError("a covariance that is known by its products only cannot be whitened: pass its matrix")
    return whitened(difference, covariance)


def _anderson_darling(log_cdf: NDArray[np.float64], log_sf: NDArray[np.float64]) -> float:
    """The p-value of the test that the values are uniform whose logarithms, and those of their complements, are given:
    the rank of the statistic among those of 999 uniform samples, the same ones each time, hence exact."""
    weights = 2 * np.arange(1, len(log_cdf) + 1) - 1.0

    def statistic(log_below: NDArray, log_above: NDArray) -> NDArray:
        """Grows with the distance from uniform. The i-th smallest value meets the i-th largest one's complement."""
        return -((np.sort(log_below) + np.sort(log_above)) * weights).mean(axis=-1)

    sample = np.random.default_rng(0).random((999, len(log_cdf)))
    larger = statistic(np.log(sample), np.log1p(-sample)) >= statistic(log_cdf, log_sf)
    return float((1 + larger.sum()) / 1000)


def _p_value(test: Callable[[NDArray[np.float64]], Any], x: NDArray[np.float64]) -> float:
    """The p-value of an instance, NaN where nothing was detected."""
    try:
        result = test(x)
    except SigadError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"the test failed on an instance of shape {x.shape}: {type(error).__name__}: {error}"
        ) from error
    p = getattr(result, "p_value", result)
    try:
        if np.ndim(p) == 0 and (np.isnan(p) or 0 <= p <= 1):
            return float(p)
    except (TypeError, ValueError):
        pass
    raise InvalidInputError(f"the test must give a result with one p_value in [0, 1], or NaN, not {p!r}")
