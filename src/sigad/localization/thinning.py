"""The localization test by Gaussian thinning: any detector, no search (:mod:`sigad.inference.thinning`)."""

import time

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sigad.checks import real_number
from sigad.errors import InvalidInputError
from sigad.inference.covariance import Covariance, multiplication
from sigad.inference.region import WHOLE_LINE
from sigad.inference.result import TESTED
from sigad.inference.thinning import thin
from sigad.inference.truncated import Alternative, check_alternative, mean_confidence_interval, truncated_pvalue
from sigad.localization.contrast import contrast
from sigad.localization.detector import Detector
from sigad.localization.test import LocalizationResult, checked_images, require_independent


def thinned_localization_test(
    reconstruct: nn.Module,
    x: ArrayLike | Tensor,
    x_ref: ArrayLike | Tensor,
    *,
    threshold: float,
    covariance: Covariance,
    tau: float,
    rng: np.random.Generator,
    filter_size: int = 3,
    within: ArrayLike | None = None,
    alternative: Alternative = "two-sided",
    level: float = 0.95,
) -> LocalizationResult:
    """Is the region that the detector marked in a noisier copy of an image truly different from a reference?

    The detector sees x + tau w; the mean over what it marks there is tested on x - w/tau, which is independent of it:
    a normal test, exact for a known covariance, for any torch module that is a detector (it need not be piecewise
    linear). The variance of the effect is (2 + 1/tau^2)/2 times that of :func:`localization_test` on the same mask.

    ``tau`` and ``rng`` as in :func:`sigad.inference.thinning.thin`, all others as in :func:`localization_test`;
    ``selection`` is what was marked in the noisier copy, for which the threshold should have been chosen: its noise
    has (1 + tau^2) times the variance. Errors are those of :func:`localization_test`.
    """
    x, x_ref = checked_images(x, x_ref)
    check_alternative(alternative)
    if not 0 < real_number(level, "level") < 1:
        raise InvalidInputError(f"level must lie between 0 and 1, not {level}")
    multiplication(covariance, x.size)  # checked before anything is selected
    detector = Detector(reconstruct, threshold=threshold, filter_size=filter_size, within=within)
    require_independent(x, x_ref)
    return thinned_test(detector, x, x_ref, covariance, tau=tau, rng=rng, alternative=alternative, level=level)


def thinned_test(
    detector: Detector,
    x: NDArray[np.float64],
    x_ref: NDArray[np.float64],
    covariance: Covariance,
    *,
    tau: float,
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
    level: float = 0.95,
) -> LocalizationResult:
    """:func:`thinned_localization_test` for a detector; images (C, H, W) and covariance are taken as they are."""
    started = time.perf_counter()
    halves = thin(x, covariance, tau=tau, rng=rng)
    found = detector.detect(halves.detection)
    if not found.mask.any():
        return LocalizationResult.nothing(found, started)
    unthinned = contrast(found.mask, halves.test, x_ref, covariance)
    # The references have not been thinned: 1 + 1/tau^2 and 1/R instead of 1 and 1/R.
    share = 1.0 if x_ref.ndim == 3 else 1 / len(x_ref)
    standard_error = unthinned.standard_error * ((halves.test_variance + share) / (1 + share)) ** 0.5
    statistic = unthinned.effect / standard_error
    p_value = float(truncated_pvalue(statistic, WHOLE_LINE, alternative=alternative))
    low, high = mean_confidence_interval(statistic, WHOLE_LINE, level=level)
    return LocalizationResult(
        status=TESTED,
        statistic=statistic,
        p_value=p_value,
        p_low=p_value,
        p_high=p_value,
        region=WHOLE_LINE,
        selection=found,
        n_evaluations=1,
        seconds=time.perf_counter() - started,
        effect=unthinned.effect,
        confidence_interval=(low * standard_error, high * standard_error),
        searched=(-np.inf, np.inf),
        tested=found.mask,
    )
