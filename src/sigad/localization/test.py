"""The selective test for anomaly localization by reconstruction: is the region that was marked truly different?

Source: Katsuoka et al., Statistical Test for Diffusion-Based Anomaly Localization via Selective Inference (TMLR 2026).
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sigad.checks import flag, real_array, real_number, whole_number
from sigad.errors import InvalidInputError
from sigad.inference.contrast import multiply
from sigad.inference.covariance import Covariance
from sigad.inference.engines import engine_of, way_out
from sigad.inference.estimated import EstimatedScale
from sigad.inference.hypothesis import require_piecewise_linear
from sigad.inference.lattice import Lattice
from sigad.inference.result import TESTED, TOLERANCE, Decision, TestResult, Tolerance
from sigad.inference.ties import require_no_copies
from sigad.inference.truncated import Alternative, check_alternative
from sigad.localization.coarse import CoarseMap, parse_resolution
from sigad.localization.contrast import ReferenceScale, contrast
from sigad.localization.detector import Detector, Localization
from sigad.localization.hypothesis import MaskHypothesis
from sigad.localization.regions import RegionsResult, connected
from sigad.optional import needs


@dataclass(frozen=True, eq=False, repr=False)
class LocalizationResult(TestResult):
    """The result of :func:`localization_test`.

    Besides what every :class:`~sigad.inference.result.TestResult` has (``selection`` is a
    :class:`~sigad.localization.detector.Localization`):

    Attributes
    ----------
    effect : mean of the image minus mean of the reference over the tested pixels, in the units of the image.
    confidence_interval : selective 95% confidence interval for the true value of the effect. Its coverage holds however
        early the search stopped (it takes what has not been searched at its worst), but it is then wider.
    searched : (low, high), the part of the line that was searched, in the units of ``statistic``.
    tested : (H, W) bool, the pixels that the hypothesis is about: those marked (``selection.mask``), or what the
        ``resolution`` makes of them.
    """

    effect: float
    confidence_interval: tuple[float, float]
    searched: tuple[float, float]
    tested: NDArray[np.bool_]

    @classmethod
    def nothing(cls, found: Localization, started: float) -> "LocalizationResult":
        """The result where no pixel was marked."""
        nan = float("nan")
        nothing = {"effect": nan, "confidence_interval": (nan, nan), "searched": (nan, nan)}
        return cls.not_selected(found, time.perf_counter() - started, **nothing, tested=found.mask)

    def _details(self) -> list[str]:
        low, high = self.confidence_interval
        return [
            f"effect {self.effect:.4g} over {np.count_nonzero(self.tested)} pixels, "
            f"confidence interval [{low:.4g}, {high:.4g}]"
        ]

    def plot(self):
        """A figure: the score map, the marked pixels outlined, and beside it what was tested, in colour. Returns the
        matplotlib Figure; nothing is shown or saved."""
        with needs("pipeline"):
            from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        p = f"p = {self.p_value:.3g}" if self.status == TESTED else self.status
        for axes, pixels, title in zip(
            figure.subplots(1, 2), (self.selection.mask, self.tested), ("marked", f"tested: {p}"), strict=True
        ):
            axes.imshow(self.selection.scores, cmap="gray", interpolation="nearest")
            axes.imshow(np.where(pixels, 1.0, np.nan), cmap="autumn", alpha=0.45, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=title)
        return figure


def localization_test(
    reconstruct: nn.Module,
    x: ArrayLike | Tensor,
    x_ref: ArrayLike | Tensor,
    *,
    threshold: float,
    covariance: Covariance | EstimatedScale | ReferenceScale,
    filter_size: int = 3,
    within: ArrayLike | None = None,
    per_region: bool = False,
    resolution: int | ArrayLike | CoarseMap = 1,
    engine: str | Lattice = "exact",
    tolerance: Tolerance | Decision | float = TOLERANCE,
    exhaustive: bool = False,
    alternative: Alternative = "two-sided",
    level: float = 0.95,
    dtype: torch.dtype | None = None,
    memory_budget: int = 2**30,
) -> LocalizationResult | RegionsResult:
    """Is the region that the detector marked in an image truly different from a normal reference image?

    The score of a pixel is |mean filter of (reconstruct(x) - x)|, summed over channels; the mask M are the pixels
    whose score exceeds the threshold. The null hypothesis is that the mean signal over M is the same in x and x_ref,
    each a signal plus normal noise. The p-value is valid although the image itself chose M: it conditions on that.

    Parameters
    ----------
    reconstruct : module in eval mode that maps images (B, C, H, W) to their reconstructions, in the
        same shape: an autoencoder, or :class:`~sigad.models.diffusion.reconstruct.Reconstruction`. Used on its own
        device.
    x : (C, H, W) test image.
    x_ref : (C, H, W) normal reference image, independent of x and with the same covariance, or (R, C, H, W) several,
        independent of one another, whose mean is taken: with R = 1 the difference has twice the variance of an image's
        mean, with many hardly more than once. References do not pass through the network.
    threshold : of the score; must have been fixed without x and x_ref.
    covariance : of the noise of one image, known or estimated from independent data: a variance, or for the n = C*H*W
        numbers in row-major order (n,) variances, an (n, n) matrix, or an operator with ``@`` such as
        :class:`~sigad.inference.covariance.AutoregressiveCovariance`, which needs no matrix. If only its shape is
        known, :class:`~sigad.inference.estimated.EstimatedScale`, or with several references
        :class:`~sigad.localization.contrast.ReferenceScale`, for both of which the test is exact.
    filter_size : of the mean filter, odd.
    within : (H, W) bool, fixed beforehand; only these pixels may be marked, and are tested.
    per_region : one hypothesis for each connected component of the mask, instead of one for all of it. Each test
        conditions on the whole mask, so that given the mask all their p-values are valid, and Holm's and
        Benjamini & Yekutieli's procedures over the components are. Each component has its own line: the search takes
        as long as that many tests.
    resolution : what is tested, fixed beforehand. 1: the marked pixels (the paper's question); b: the blocks of b x b
        pixels that hold a marked one, with several times the power; labels (H, W) of the parts of a fixed atlas, of
        which those are tested that hold a marked pixel; or another :class:`~sigad.localization.coarse.CoarseMap`. The
        selection that the test conditions on is that of the blocks or parts.
    engine : "exact" follows a module that is piecewise linear; "lattice", or a
        :class:`~sigad.inference.lattice.Lattice` with its settings, takes any (``docs/lattice.md``).
    tolerance : the search stops when the bounds on the p-value are so close; a number is absolute.
    exhaustive : search the whole line (but for 1e-12 of the probability beyond the statistic).
    alternative : "two-sided" (the paper's), "equal-tailed", "greater" (x is brighter) or "less".
    level : of the confidence interval.
    dtype : for the exact engine, precision of the search, single by default; end points of the region have double
        precision in any case. For the lattice engine, precision of the detector itself, double by default; single is
        several times as fast.
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
        names the operation of the module that is not piecewise linear, for the exact engine, also where no pixel was
        marked.
    NumericalError
        where one of x and the references is a copy of another, or a score equals the threshold to rounding.
    """
    started = time.perf_counter()
    x, x_ref = checked_images(x, x_ref)
    if not 0 < real_number(level, "level") < 1:
        raise InvalidInputError(f"level must lie between 0 and 1, not {level}")
    check_alternative(alternative)
    if dtype not in (None, torch.float32, torch.float64):
        raise InvalidInputError(f"dtype must be torch.float32 or torch.float64, not {dtype}")
    memory_budget = whole_number(memory_budget, "memory_budget", least=1)
    per_region, exhaustive = flag(per_region, "per_region"), flag(exhaustive, "exhaustive")
    tolerance = Tolerance(0.0, 0.0) if exhaustive else Tolerance.of(tolerance)
    run = engine_of(engine, exhaustive=exhaustive, dtype=dtype or torch.float32)
    _check_covariance(covariance, x, x_ref)  # before anything is selected
    coarse = parse_resolution(resolution)
    coarse.tested(np.zeros((1, *x.shape[1:]), bool))
    detector = Detector(reconstruct, threshold=threshold, filter_size=filter_size, within=within)
    if engine != "exact" and dtype == torch.float32:
        detector = detector.in_single_precision()
    require_independent(x, x_ref)
    found = detector.detect(x)
    if not found.mask.any():
        if engine == "exact":
            with way_out():
                require_piecewise_linear(detector.score_map, x, detector.device)

    def test(mask: NDArray[np.bool_], started: float) -> LocalizationResult:
        """The test of the mean over these pixels, given what the coarse map makes of all that was marked."""
        line = contrast(mask, x, x_ref, covariance)
        hypothesis = MaskHypothesis(detector, x, found.mask, line, memory_budget, coarse)
        result = run(hypothesis, alternative=alternative, tolerance=tolerance)
        return LocalizationResult.of_search(
            result,
            line.statistic,
            Localization(mask, found.scores) if per_region else found,
            time.perf_counter() - started,
            effect=line.effect,
            confidence_interval=line.confidence_interval(result, level),
            searched=result.searched,
            tested=mask,
        )

    pixels = detector.inside(coarse.tested(found.mask[None])[0])
    if per_region:
        results = [test(mask, time.perf_counter()) for mask in connected(pixels)]
        return RegionsResult.of(found, results, time.perf_counter() - started)
    return test(pixels, started) if pixels.any() else LocalizationResult.nothing(found, started)


def _check_covariance(covariance: Covariance | EstimatedScale | ReferenceScale, x: NDArray, x_ref: NDArray) -> None:
    if isinstance(covariance, ReferenceScale):
        covariance.over(np.ones(x.shape), x_ref.reshape(-1, *x.shape))
        covariance = covariance.shape
    multiply(covariance, np.zeros(x.size))


def checked_images(x: ArrayLike | Tensor, x_ref: ArrayLike | Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Test image (C, H, W), and reference of that shape or (R, C, H, W), as arrays; raises InvalidInputError."""
    x, x_ref = _image(x, "x", (3,)), _image(x_ref, "x_ref", (3, 4))
    if x.shape != x_ref.shape[-3:]:
        raise InvalidInputError(f"x has the shape {x.shape}, x_ref {x_ref.shape}: they must be the same")
    return x, x_ref


def require_independent(x: NDArray[np.float64], x_ref: NDArray[np.float64]) -> None:
    """Raises NumericalError where one of the test image and the references is a copy of another."""
    images = np.concatenate([x[None], x_ref.reshape(-1, *x.shape)])
    require_no_copies(images, range(len(images)))


def _image(value: ArrayLike | Tensor, name: str, dimensions: tuple[int, ...]) -> NDArray[np.float64]:
    value = real_array(value, name)
    if value.ndim not in dimensions or not value.size:
        shape = "(C, H, W): pass one image at a time" if dimensions == (3,) else "(C, H, W) or (R, C, H, W)"
        raise InvalidInputError(f"{name} has the shape {value.shape}, but must have {shape}")
    return value
