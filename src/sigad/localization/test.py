"""The selective test for anomaly localization by reconstruction: is the region that was marked truly different?

Source: Katsuoka et al., Statistical Test for Diffusion-Based Anomaly Localization via Selective Inference (TMLR 2026).
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sigad.checks import real_array
from sigad.errors import InvalidInputError
from sigad.inference import region as rg
from sigad.inference.covariance import Covariance, multiplication
from sigad.inference.exact import exact
from sigad.inference.result import NOT_SELECTED, TESTED, TOLERANCE, TestResult, Tolerance
from sigad.inference.truncated import Alternative
from sigad.line import Restriction
from sigad.localization.contrast import contrast
from sigad.localization.detector import Detector, Localization
from sigad.localization.hypothesis import MaskHypothesis
from sigad.localization.regions import RegionsResult, connected


@dataclass(frozen=True, eq=False, repr=False)
class LocalizationResult(TestResult):
    """The result of :func:`localization_test`.

    Besides what every :class:`~sigad.inference.result.TestResult` has (``selection`` is a
    :class:`~sigad.localization.detector.Localization`):

    Attributes
    ----------
    effect : mean of the image minus mean of the reference over the marked pixels, in the units of the image.
    confidence_interval : selective 95% confidence interval for the true value of the effect. Its coverage holds however
        early the search stopped (it takes what has not been searched at its worst), but it is then wider.
    searched : (low, high), the part of the line that was searched, in the units of ``statistic``.
    """

    effect: float
    confidence_interval: tuple[float, float]
    searched: tuple[float, float]

    @classmethod
    def nothing(cls, found: Localization, started: float) -> "LocalizationResult":
        """The result where no pixel was marked."""
        nan = float("nan")
        return cls(
            status=NOT_SELECTED,
            statistic=nan,
            p_value=nan,
            p_low=nan,
            p_high=nan,
            region=rg.EMPTY,
            selection=found,
            n_evaluations=0,
            seconds=time.perf_counter() - started,
            effect=nan,
            confidence_interval=(nan, nan),
            searched=(nan, nan),
        )

    def _details(self) -> list[str]:
        low, high = self.confidence_interval
        return [f"effect {self.effect:.4g}, confidence interval [{low:.4g}, {high:.4g}]"]


def localization_test(
    reconstruct: nn.Module,
    x: ArrayLike | Tensor,
    x_ref: ArrayLike | Tensor,
    *,
    threshold: float,
    covariance: Covariance,
    filter_size: int = 3,
    within: ArrayLike | None = None,
    per_region: bool = False,
    tolerance: Tolerance | float = TOLERANCE,
    exhaustive: bool = False,
    alternative: Alternative = "two-sided",
    level: float = 0.95,
    dtype: torch.dtype = torch.float32,
    memory_budget: int = 2**30,
) -> LocalizationResult | RegionsResult:
    """Is the region that the detector marked in an image truly different from a normal reference image?

    The score of a pixel is |mean filter of (reconstruct(x) - x)|, summed over channels; the mask M are the pixels
    whose score exceeds the threshold. The null hypothesis is that the mean signal over M is the same in x and x_ref,
    each a signal plus normal noise. The p-value is valid although the image itself chose M: it conditions on that.

    Parameters
    ----------
    reconstruct : piecewise-linear module in eval mode that maps images (B, C, H, W) to their reconstructions, in the
        same shape: an autoencoder, or :class:`~sigad.models.diffusion.reconstruct.Reconstruction`. Used on its own
        device.
    x : (C, H, W) test image.
    x_ref : (C, H, W) normal reference image, independent of x and with the same covariance. It does not pass
        through the network.
    threshold : of the score; must have been fixed without x and x_ref.
    covariance : of the noise of one image, known or estimated from independent data: a variance, or for the n = C*H*W
        numbers in row-major order (n,) variances, an (n, n) matrix, or an operator with ``@`` such as
        :class:`~sigad.inference.covariance.AutoregressiveCovariance`, which needs no matrix.
    filter_size : of the mean filter, odd.
    within : (H, W) bool, fixed beforehand; only these pixels may be marked.
    per_region : one hypothesis for each connected component of the mask, instead of one for all of it. Each test
        conditions on the whole mask, so that given the mask all their p-values are valid, and Holm's and
        Benjamini & Yekutieli's procedures over the components are. Each component has its own line: the search takes
        as long as that many tests.
    tolerance : the search stops when the bounds on the p-value are so close; a number is absolute.
    exhaustive : search the whole line (but for 1e-12 of the probability beyond the statistic).
    alternative : "two-sided" (the paper's), "equal-tailed", "greater" (x is brighter) or "less".
    level : of the confidence interval.
    dtype : precision of the search; end points of the region have double precision in any case.
    memory_budget : bytes that the search may take for activations.

    Returns
    -------
    LocalizationResult
        with ``status`` "not_selected" when no pixel was marked; a :class:`~sigad.localization.regions.RegionsResult`
        for ``per_region``.

    Raises
    ------
    InvalidInputError
        for NaN, shapes that do not fit, a module in training mode, or a covariance that is not one.
    UnsupportedOperationError
        names the operation of the module that is not piecewise linear, also where no pixel was marked.
    """
    started = time.perf_counter()
    x, x_ref = checked_images(x, x_ref)
    if not 0 < level < 1:
        raise InvalidInputError(f"level must lie between 0 and 1, not {level}")
    tolerance = Tolerance.of(tolerance)
    multiplication(covariance, x.size)  # checked before anything is selected
    detector = Detector(reconstruct, threshold=threshold, filter_size=filter_size, within=within)
    found = detector.detect(x)
    if not found.mask.any():
        require_piecewise_linear(detector, x)

    def test(mask: NDArray[np.bool_], started: float) -> LocalizationResult:
        """The test of the mean over these pixels, given all that was marked."""
        line = contrast(mask, x, x_ref, covariance)
        result = exact(
            MaskHypothesis(detector, x, found.mask, line, memory_budget),
            alternative=alternative,
            tolerance=tolerance,
            exhaustive=exhaustive,
            dtype=dtype,
        )
        low, high = result.confidence_interval(level)
        return LocalizationResult(
            status=TESTED,
            statistic=line.statistic,
            p_value=result.p_value,
            p_low=result.p_low,
            p_high=result.p_high,
            region=result.region,
            selection=Localization(mask, found.scores),
            n_evaluations=result.n_evaluations,
            seconds=time.perf_counter() - started,
            effect=line.effect,
            confidence_interval=(low * line.standard_error, high * line.standard_error),
            searched=result.searched,
        )

    if per_region:
        tested = [test(mask, time.perf_counter()) for mask in connected(found.mask)]
        return RegionsResult.of(found, tested, time.perf_counter() - started)
    return test(found.mask, started) if found.mask.any() else LocalizationResult.nothing(found, started)


localization_test.__test__ = False  # not a test case of pytest


def require_piecewise_linear(detector: Detector, x: NDArray[np.float64]) -> None:
    """Raise UnsupportedOperationError for a detector that the exact engine cannot take, by a look next to x."""
    start = torch.as_tensor(x, device=detector.device)
    Restriction(detector.score_map, start, torch.ones_like(start), dtype=torch.float64)(0.0, 1e-9)


def checked_images(x: ArrayLike | Tensor, x_ref: ArrayLike | Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Test image and reference as arrays (C, H, W), of one shape; raises InvalidInputError."""
    x, x_ref = _image(x, "x"), _image(x_ref, "x_ref")
    if x.shape != x_ref.shape:
        raise InvalidInputError(f"x has the shape {x.shape}, x_ref {x_ref.shape}: they must be the same")
    return x, x_ref


def _image(value: ArrayLike | Tensor, name: str) -> NDArray[np.float64]:
    value = real_array(value, name)
    if value.ndim != 3 or not value.size:
        raise InvalidInputError(f"{name} must have shape (C, H, W), not {value.shape}: pass one image at a time")
    return value
