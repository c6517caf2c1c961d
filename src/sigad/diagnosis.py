"""Does a test's p-value hold on these data? What normal instances that nothing else has seen say about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array
from sigad.errors import InvalidInputError, SigadError
from sigad.inference.covariance import Covariance, is_operator, multiplication, whitened
from sigad.inference.estimated import Estimated
from sigad.optional import needs
from sigad.rejections import Rejections, judge

OFF = 0.01
"""A noise model is called off where data as far from it have less than this probability under it."""

FEWEST = 8
"""Fewer pairs than this say nothing about a noise model."""

LARGEST = 10_000
"""The matrix of a covariance that is known by its products is made for no more numbers than this."""


@dataclass(frozen=True)
class Diagnosis(Rejections):
    """What :func:`diagnose` found: on the noise model, and on a test (:class:`~sigad.rejections.Rejections`).

    Attributes
    ----------
    n_pairs : disjoint pairs of instances that were compared with the noise model.
    variance_ratio : mean square of the whitened differences of pairs, 1 under the model: the factor by which the
        covariance is too small.
    dispersion : variance of the squared lengths of these differences, relative to the model's: 1 under it, more with
        heavy tails, instances that vary more than others, or correlations that the model lacks.
    excess_kurtosis : of the whitened differences, 0 under the model.
    model_p_value : Anderson-Darling test of the lengths of these differences against their chi law, which looks at the
        tails; at least 0.001.
    residuals : (n_pairs, n) whitened differences, standard normal under the model.
    """

    n_pairs: int
    variance_ratio: float
    dispersion: float
    excess_kurtosis: float
    model_p_value: float
    residuals: NDArray[np.float64] = field(repr=False)

    @property
    def words(self) -> str:
        off = self.model_p_value < OFF
        model = (
            f"The noise model {'does not describe' if off else 'is not contradicted by'} these normals: squared "
            f"differences are {self.variance_ratio:.2f} times as large as it says and vary {self.dispersion:.2f} times "
            f"as much (p = {self.model_p_value:.2g}, {self.n_pairs} pairs)."
        )
        if len(self.p_values):
            return f"{model} {super().words}"
        if off:
            return f"{model} Do not trust a p-value that assumes it: conformal p-values hold whatever the noise is."
        return f"{model} That alone is no reason to trust a p-value: give a test, to see how often it rejects normals."

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

    The verdict is that of :func:`~sigad.rejections.judge`: ``"refused"`` where the interval of that share lies above
    alpha, ``"holds"`` where it excludes rates above ``refusal``. Without a test, only the noise model is looked at, and
    the verdict is "refused" or "undecided". The interval is exact given the test (its training
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
    if test is not None and not callable(test):
        raise InvalidInputError(
            f"test must be a function of an instance, such as lambda x: knn_test(x, ...), not {type(test).__name__}"
        )
    judge([], alpha=alpha, refusal=refusal)  # levels that are none are told before the test is run
    from scipy import stats  # slow to import

    residuals = _whitened_pairs(normals, covariance, _mask(within, normals.shape[1:]))
    lengths = np.square(residuals).sum(axis=1)
    n = residuals.shape[1]
    p_values = [_p_value(test, x) for x in normals] if test is not None else []
    found: dict[str, Any] = vars(judge(p_values, alpha=alpha, refusal=refusal)) | {"n_normals": len(normals)}
    model_p = _anderson_darling(stats.chi2(n).logcdf(lengths), stats.chi2(n).logsf(lengths))
    if test is None and model_p < OFF:
        found["verdict"] = "refused"
    return Diagnosis(
        **found,
        n_pairs=len(residuals),
        variance_ratio=float(lengths.mean() / n),
        dispersion=float(lengths.var(ddof=1) / (2 * n)),
        excess_kurtosis=float(stats.kurtosis(residuals, axis=None)),
        model_p_value=model_p,
        residuals=residuals,
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
        if mask.sum() > LARGEST:
            raise InvalidInputError(
                f"the matrix of a covariance that is known by its products only is made for {LARGEST} numbers of an "
                f"instance at most, not for {mask.sum()}: pass within= a smaller mask"
            )
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
    if mask is None and hasattr(covariance, "whiten"):
        return covariance.whiten(difference)
    if mask is None and is_operator(covariance):
        mask = np.ones(difference.shape[1], bool)
    if mask is None:
        return whitened(difference, covariance)
    return whitened(difference[:, mask], _among(covariance, mask))


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
