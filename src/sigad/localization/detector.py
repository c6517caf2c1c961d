"""The selective test for anomaly localization by reconstruction: is the region that was marked truly different?

A detector reconstructs an image as it would look if it were normal, and marks the pixels where image and reconstruction
differ. Nothing here is special to diffusion models: any piecewise-linear torch module that maps an image to its
reconstruction will do.

Source: Katsuoka et al., Statistical Test for Diffusion-Based Anomaly Localization via Selective Inference (TMLR 2026).
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.errors import InvalidInputError, NumericalError
from sigad.inference import region as rg
from sigad.inference.exact import Selection, search
from sigad.inference.region import Region
from sigad.inference.result import NOT_SELECTED, TESTED, TestResult
from sigad.inference.truncated import Alternative, mean_confidence_interval, truncated_pvalue
from sigad.line import Restriction, agreement
from sigad.localization.covariance import Covariance, apply_covariance

FARTHEST = 40.0
"""A linear piece is followed so far beyond the statistic, in standard deviations; what is beyond has no probability."""


@dataclass(frozen=True)
class Localization:
    """What the detector marked: ``region`` (H, W) bool, and ``scores`` (H, W) that were compared with the threshold."""

    region: NDArray[np.bool_]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class LocalizationResult(TestResult):
    """The result of :func:`localization_test`.

    Besides what every :class:`~sigad.inference.result.TestResult` has (``selection`` is a :class:`Localization`):

    Attributes
    ----------
    effect : mean of the image minus mean of the reference over the region, in the units of the image.
    confidence_interval : selective 95% confidence interval for the true value of the effect. Its coverage holds however
        early the search stopped (it takes what has not been searched at its worst), but it is then wider.
    searched : (low, high), the part of the line that was searched, in the units of ``statistic``.
    """

    effect: float
    confidence_interval: tuple[float, float]
    searched: tuple[float, float]


class ScoreMap(nn.Module):
    """|mean filter of (reconstruction - image)|, summed over channels: (B, C, H, W) to (B, H, W).

    The mean filter pads with zeros. ``filter_size`` is odd; 1 is no filter.
    """

    def __init__(self, reconstruct: nn.Module, filter_size: int = 3):
        super().__init__()
        if filter_size < 1 or filter_size % 2 == 0:
            raise InvalidInputError(f"filter_size must be odd and positive, not {filter_size}")
        self.reconstruct, self.filter_size = reconstruct, filter_size
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        reconstruction = self.reconstruct(x)
        if reconstruction.shape != x.shape:
            raise InvalidInputError(
                f"the module must map an image to an image of the same shape, "
                f"not {tuple(x.shape)} to {tuple(reconstruction.shape)}"
            )
        difference = reconstruction - x
        if self.filter_size > 1:
            difference = F.avg_pool2d(difference, self.filter_size, 1, self.filter_size // 2)
        return difference.abs().sum(1)


@dataclass(frozen=True)
class Contrast:
    """The tested statistic: ``effect`` = ``statistic`` * ``standard_error``, and how the image moves with it.

    ``direction`` (C, H, W): along the line the image is x + (z - statistic) * direction, which has the statistic z.
    """

    effect: float
    standard_error: float
    direction: NDArray[np.float64]

    @property
    def statistic(self) -> float:
        return self.effect / self.standard_error


def contrast(
    region: NDArray[np.bool_], x: NDArray[np.float64], x_ref: NDArray[np.float64], covariance: Covariance = 1.0
) -> Contrast:
    """Mean of x (C, H, W) minus mean of x_ref over the region (H, W), not empty, with its standard error.

    x and x_ref are independent with the same covariance; see :func:`localization_test`.
    """
    weights = np.broadcast_to(region, x.shape).astype(np.float64).ravel()
    weights /= weights.sum()
    moved = apply_covariance(covariance, weights)
    variance = 2 * float(weights @ moved)
    if not variance > 0:
        raise InvalidInputError("the covariance must be positive definite: the effect has no positive variance")
    effect = float(weights @ (x - x_ref).ravel())
    return Contrast(effect, variance**0.5, (moved / variance**0.5).reshape(x.shape))


class Detector:
    """A reconstruction, a threshold and a filter: what marks a region, and the truncation region of a marked one.

    Parameters are those of :func:`localization_test`. Detection is in double precision whatever the module's own, so
    that search and detection cannot disagree.
    """

    dtype = torch.float64

    def __init__(
        self,
        reconstruct: nn.Module,
        *,
        threshold: float,
        filter_size: int = 3,
        mask: ArrayLike | None = None,
    ):
        if not isinstance(reconstruct, nn.Module):
            raise InvalidInputError("reconstruct must be a torch.nn.Module; wrap a function in one")
        if any(module.training for module in reconstruct.modules()):
            raise InvalidInputError("the network is in training mode: call reconstruct.eval() first")
        if not np.isfinite(threshold):
            raise InvalidInputError(f"threshold must be a finite number, not {threshold}")
        state = [s for s in (*reconstruct.parameters(), *reconstruct.buffers()) if s.is_floating_point()]
        if not all(s.dtype == torch.float64 for s in state):
            reconstruct = copy.deepcopy(reconstruct).double()
        self.device = state[0].device if state else torch.device("cpu")
        self.score_map, self.threshold = ScoreMap(reconstruct, filter_size), float(threshold)
        self.mask = None if mask is None else np.asarray(mask)
        if self.mask is not None and (self.mask.dtype != bool or self.mask.ndim != 2):
            raise InvalidInputError("mask must be boolean, of shape (H, W)")

    def scores(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score maps (B, H, W) of images (B, C, H, W)."""
        with torch.no_grad():
            scores = self.score_map(torch.as_tensor(images, dtype=self.dtype, device=self.device))
        return scores.cpu().numpy()

    def in_single_precision(self) -> "Detector":
        """A copy that detects in single precision: several times faster, but not for use with a search."""
        result = copy.copy(self)
        result.dtype, result.score_map = torch.float32, copy.deepcopy(self.score_map).float()
        return result

    def regions(self, images: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The marked regions (B, H, W) of images (B, C, H, W)."""
        return self._marked(self.scores(images))

    def detect(self, x: NDArray[np.float64]) -> Localization:
        """What is marked in one image (C, H, W)."""
        if self.mask is not None and self.mask.shape != x.shape[1:]:
            raise InvalidInputError(f"mask has the shape {self.mask.shape}, the image {x.shape[1:]}")
        scores = self.scores(x[None])[0]
        if not np.isfinite(scores).all():
            raise InvalidInputError("the module returned values that are not finite")
        return Localization(self._marked(scores), scores)

    def _marked(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        above = scores > self.threshold
        return above if self.mask is None else above & self.mask

    def selection(
        self,
        x: NDArray[np.float64],
        region: NDArray[np.bool_],
        line: Contrast,
        dtype: torch.dtype = torch.float64,
        memory_budget: int = 2**30,
    ) -> Selection:
        """Where along the line the marked region is ``region``, for :func:`sigad.inference.exact.search`."""
        restriction = self._restriction(x, line, dtype, memory_budget)

        def select(windows: Region) -> tuple[Region, int]:
            parts, pieces = [rg.EMPTY], 0
            for part in restriction.chunks(*windows):
                parts.append(self._agreement(part, region))
                pieces += part.pieces
            return rg.union(*parts), pieces

        return select

    def linear_piece(self, x: NDArray[np.float64], region: NDArray[np.bool_], line: Contrast) -> tuple[Region, int]:
        """The interval around the statistic in which scores are linear and the region is the observed one.

        Returns it, (1, 2), and the number of pieces that were looked at.
        """
        statistic, restriction = line.statistic, self._restriction(x, line, torch.float64, 2**30)
        reach, pieces = np.array([1e-3, 1e-3]), 0
        while True:
            low, high = statistic - reach[0], statistic + reach[1]
            scores = restriction(low, high)
            pieces += scores.pieces
            points = scores.breakpoints.cpu().numpy()
            place = int(np.searchsorted(points, statistic, side="right"))
            # A piece that ends at the window's end may go on beyond it.
            open_ends = np.array([place <= 1, place >= len(points) - 1]) & (reach < FARTHEST)
            if not open_ends.any():
                break
            reach = np.where(open_ends, np.minimum(8 * reach, FARTHEST), reach)
        piece = [[points[place - 1], points[place]]]
        agree = rg.component(rg.intersection(self._agreement(scores, region), piece), statistic)
        if not len(agree):
            raise NumericalError("the scores at the observed image do not give the observed region")
        return agree, pieces

    def _restriction(
        self, x: NDArray[np.float64], line: Contrast, dtype: torch.dtype, memory_budget: int
    ) -> Restriction:
        start = torch.as_tensor(x - line.statistic * line.direction, device=self.device)
        direction = torch.as_tensor(line.direction, device=self.device)
        return Restriction(self.score_map, start, direction, dtype=dtype, memory_budget=memory_budget)

    def _agreement(self, scores, region: NDArray[np.bool_]) -> Region:
        observed = torch.as_tensor(region)
        if self.mask is not None:  # what is outside of the mask is free
            inside = torch.as_tensor(self.mask, device=scores.values.device)
            scores, observed = scores.derive(scores.values[:, inside]), observed[inside.cpu()]
        return agreement(scores, self.threshold, observed)


def test_localization(
    detector: Detector,
    x: NDArray[np.float64],
    region: NDArray[np.bool_],
    line: Contrast,
    *,
    alternative: Alternative = "two-sided",
    tolerance: float | None = None,
    exhaustive: bool = False,
    dtype: torch.dtype = torch.float32,
    memory_budget: int = 2**30,
):
    """Search the truncation region of a marked region that is not empty; :func:`localization_test` after detection.

    ``dtype`` is the precision of the search; in single precision, every end point found is polished in double
    precision. Returns a :class:`sigad.inference.exact.SearchResult`.
    """
    limits = {} if tolerance is None else {"atol": tolerance, "rtol": 0.0}

    def run(dtype: torch.dtype):
        exact = detector.selection(x, region, line, torch.float64, memory_budget)
        if dtype == torch.float64:
            select, polish = exact, None
        else:
            select, polish = detector.selection(x, region, line, dtype, memory_budget), exact
        return search(select, line.statistic, alternative=alternative, exhaustive=exhaustive, polish=polish, **limits)

    try:
        return run(dtype)
    except NumericalError:
        # A score so close to the threshold that single precision takes the other side.
        if dtype == torch.float64:
            raise
        return run(torch.float64)


test_localization.__test__ = False  # not a test case of pytest


def localization_test(
    reconstruct: nn.Module,
    x: ArrayLike | Tensor,
    x_ref: ArrayLike | Tensor,
    *,
    threshold: float,
    covariance: Covariance = 1.0,
    filter_size: int = 3,
    mask: ArrayLike | None = None,
    tolerance: float | None = None,
    exhaustive: bool = False,
    alternative: Alternative = "two-sided",
    level: float = 0.95,
    dtype: torch.dtype = torch.float32,
    memory_budget: int = 2**30,
) -> LocalizationResult:
    """Is the region that the detector marked in an image truly different from a normal reference image?

    The score of a pixel is |mean filter of (reconstruct(x) - x)|, summed over channels; the region M are the pixels
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
        :class:`~sigad.localization.covariance.AutoregressiveCovariance`, which needs no matrix.
    filter_size : of the mean filter, odd.
    mask : (H, W) bool, fixed beforehand; M lies within it.
    tolerance : the search stops when the bounds on the p-value are so close. By default 1e-6 or a hundredth of the
        upper bound, whichever is larger.
    exhaustive : search the whole line (but for 1e-12 of the probability beyond the statistic).
    alternative : "two-sided" (the paper's), "equal-tailed", "greater" (x is brighter) or "less".
    level : of the confidence interval.
    dtype : precision of the search; end points of the region have double precision in any case.
    memory_budget : bytes that the search may take for activations.

    Returns
    -------
    LocalizationResult
        with ``status`` "not_selected" when no pixel was marked.

    Raises
    ------
    InvalidInputError
        for NaN, shapes that do not fit, a module in training mode, or a covariance that is not one.
    UnsupportedOperationError
        names the operation of the module that is not piecewise linear.
    """
    started = time.perf_counter()
    x, x_ref = _image(x, "x"), _image(x_ref, "x_ref")
    if x.shape != x_ref.shape:
        raise InvalidInputError(f"x has the shape {x.shape}, x_ref {x_ref.shape}: they must be the same")
    if tolerance is not None and not 0 < tolerance < 1:
        raise InvalidInputError(f"tolerance must lie between 0 and 1, not {tolerance}")
    detector = Detector(reconstruct, threshold=threshold, filter_size=filter_size, mask=mask)
    found = detector.detect(x)
    if not found.region.any():
        nan = float("nan")
        return LocalizationResult(
            status=NOT_SELECTED,
            statistic=nan,
            p_value=nan,
            p_low=nan,
            p_high=nan,
            region=rg.EMPTY,
            selection=found,
            n_pieces=0,
            seconds=time.perf_counter() - started,
            effect=nan,
            confidence_interval=(nan, nan),
            searched=(nan, nan),
        )
    line = contrast(found.region, x, x_ref, covariance)
    result = test_localization(
        detector,
        x,
        found.region,
        line,
        alternative=alternative,
        tolerance=tolerance,
        exhaustive=exhaustive,
        dtype=dtype,
        memory_budget=memory_budget,
    )
    low, high = conservative_interval(line.statistic, result.region, result.searched, level=level)
    return LocalizationResult(
        status=TESTED,
        statistic=line.statistic,
        p_value=result.p_value,
        p_low=result.p_low,
        p_high=result.p_high,
        region=result.region,
        selection=found,
        n_pieces=result.n_pieces,
        seconds=time.perf_counter() - started,
        effect=line.effect,
        confidence_interval=(low * line.standard_error, high * line.standard_error),
        searched=result.searched,
    )


localization_test.__test__ = False


def conservative_interval(
    statistic: float, region: Region, searched: tuple[float, float], *, level: float = 0.95
) -> tuple[float, float]:
    """Selective confidence interval that holds whatever lies outside of the searched part of the line.

    Truncation regions that extend further to the right move both bounds down, those that extend further to the left
    move them up: the lower bound takes all that is unknown on the right, the upper one all that is unknown on the left.
    """
    right = rg.union(region, [[searched[1], np.inf]])
    left = rg.union(region, [[-np.inf, searched[0]]])
    return (
        mean_confidence_interval(statistic, right, level=level)[0],
        mean_confidence_interval(statistic, left, level=level)[1],
    )


def linear_piece_pvalue(detector: Detector, x: NDArray, region: NDArray[np.bool_], line: Contrast):
    """p-value (two-sided) without parametric programming, its region (1, 2), and the pieces looked at."""
    interval, pieces = detector.linear_piece(x, region, line)
    return float(truncated_pvalue(line.statistic, interval)), interval, pieces


def permutation_pvalue(
    regions: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    x: NDArray[np.float64],
    x_ref: NDArray[np.float64],
    statistic: Callable[[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]], float],
    observed: float,
    rng: np.random.Generator,
    *,
    permutations: int = 1000,
    batch: int = 64,
    patience: int = 100,
) -> float:
    """Share of the permutations of the pooled pixels of both images whose statistic exceeds the observed one in size.

    The region is marked anew in every permuted image; permutations in which nothing is marked are drawn again.

    Parameters
    ----------
    regions : marks the regions (B, H, W) of images (B, C, H, W).
    x, x_ref : (C, H, W).
    statistic : of a region and two images.
    permutations : how many that mark a region.
    patience : no more than so many times ``permutations`` draws are made.

    Raises
    ------
    NumericalError
        if so many draws do not mark enough regions.
    """
    pooled = np.concatenate([x.ravel(), x_ref.ravel()])
    larger = counted = drawn = 0
    while counted < permutations:
        if drawn >= patience * permutations:
            raise NumericalError(f"{drawn} permutations marked a region only {counted} times")
        images = np.stack([rng.permutation(pooled) for _ in range(batch)]).reshape(batch, 2, *x.shape)
        drawn += batch
        marked = regions(images[:, 0])
        for which in np.flatnonzero(marked.any(axis=(1, 2)))[: permutations - counted]:
            larger += abs(statistic(marked[which], *images[which])) > abs(observed)
            counted += 1
    return larger / permutations


def _image(value: ArrayLike | Tensor, name: str) -> NDArray[np.float64]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    value = np.asarray(value, np.float64)
    if value.ndim != 3 or not value.size:
        raise InvalidInputError(f"{name} must have shape (C, H, W), not {value.shape}")
    if not np.isfinite(value).all():
        raise InvalidInputError(f"{name} must be finite: it holds NaN or infinities")
    return value
