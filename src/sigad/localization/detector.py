"""Detectors that localize anomalies: they reconstruct an image as it would look if it were normal, and mark the pixels
where image and reconstruction differ.

Nothing here is special to diffusion models: any torch module that maps an image to its reconstruction will do.

Source: Katsuoka et al., Statistical Test for Diffusion-Based Anomaly Localization via Selective Inference (TMLR 2026).
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.blackbox import answer_of
from sigad.checks import real_number, whole_number
from sigad.errors import InvalidInputError
from sigad.line import LineFunction

_NUMBERS = 1 << 21
"""Numbers of the images that go through the network at once."""


@dataclass(frozen=True)
class Localization:
    """What the detector marked: ``mask`` (H, W) bool, and ``scores`` (H, W) that were compared with the threshold."""

    mask: NDArray[np.bool_]
    scores: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"Localization({np.count_nonzero(self.mask)} of {self.mask.size} pixels)"


class ScoreMap(nn.Module):
    """|mean filter of (reconstruction - image)|, summed over channels: (B, C, H, W) to (B, H, W).

    The mean filter pads with zeros. ``filter_size`` is odd; 1 is no filter.
    """

    def __init__(self, reconstruct: nn.Module, filter_size: int = 3):
        super().__init__()
        filter_size = whole_number(filter_size, "filter_size", least=1)
        if filter_size % 2 == 0:
            raise InvalidInputError(f"filter_size must be odd and positive, not {filter_size}")
        self.reconstruct, self.filter_size = reconstruct, filter_size
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        # A module that begins with an operation in place must not overwrite what it is compared with.
        reconstruction = self.reconstruct(x.clone())
        if not isinstance(reconstruction, (Tensor, LineFunction)):
            raise InvalidInputError(
                f"the module must return the reconstruction as a tensor, not {type(reconstruction).__name__}: "
                "wrap it in a module that picks the tensor"
            )
        if reconstruction.shape != x.shape:
            raise InvalidInputError(
                f"the module must map an image to an image of the same shape, "
                f"not {tuple(x.shape)} to {tuple(reconstruction.shape)}"
            )
        difference = reconstruction - x
        if self.filter_size > 1:
            difference = F.avg_pool2d(difference, self.filter_size, 1, self.filter_size // 2)
        return difference.abs().sum(1)


class Detector:
    """A reconstruction, a threshold and a filter, which mark pixels.

    Parameters are those of :func:`sigad.localization.localization_test`. Detection is in double precision whatever the
    module's own, so that search and detection cannot disagree.
    """

    dtype = torch.float64

    def __init__(
        self,
        reconstruct: nn.Module,
        *,
        threshold: float,
        filter_size: int = 3,
        within: ArrayLike | None = None,
    ):
        if not isinstance(reconstruct, nn.Module):
            raise InvalidInputError("reconstruct must be a torch.nn.Module; wrap a function in one")
        if any(module.training for module in reconstruct.modules()):
            raise InvalidInputError("the network is in training mode: call reconstruct.eval() first")
        threshold = real_number(threshold, "threshold")
        state = [s for s in (*reconstruct.parameters(), *reconstruct.buffers()) if s.is_floating_point()]
        if not all(s.dtype == torch.float64 for s in state):
            reconstruct = copy.deepcopy(reconstruct).double()
        self.device = state[0].device if state else torch.device("cpu")
        self.score_map, self.threshold = ScoreMap(reconstruct, filter_size), threshold
        self.within = None if within is None else np.array(within)  # a frame's is not writable, which torch asks for
        if self.within is not None and (self.within.dtype != bool or self.within.ndim != 2):
            raise InvalidInputError("within must be boolean, of shape (H, W)")
        if self.within is not None and not self.within.any():
            raise InvalidInputError("within leaves no pixel that may be marked: mark those that may by True")

    def scores(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score maps (B, H, W) of images (B, C, H, W)."""
        step = max(1, _NUMBERS // max(images[:1].size, 1))
        to_device = lambda part: torch.tensor(part, dtype=self.dtype, device=self.device)  # noqa: E731
        with torch.no_grad():
            parts = [
                answer_of(self.score_map, to_device(images[i : i + step])).cpu() for i in range(0, len(images), step)
            ]
        return torch.cat(parts).numpy()

    def in_single_precision(self) -> "Detector":
        """A copy that detects in single precision: several times faster, but not for use with the exact engine."""
        result = copy.copy(self)
        result.dtype, result.score_map = torch.float32, copy.deepcopy(self.score_map).float()
        return result

    def masks(self, images: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The marked pixels (B, H, W) of images (B, C, H, W)."""
        return self._marked(self.scores(images))

    def with_threshold(self, threshold: float) -> "Detector":
        """A copy with another threshold."""
        result = copy.copy(self)
        result.threshold = real_number(threshold, "threshold")
        return result

    def detect(self, x: NDArray[np.float64]) -> Localization:
        """What is marked in one image (C, H, W)."""
        return self.detect_all(x[None])[0]

    def detect_all(self, images: NDArray[np.float64]) -> list[Localization]:
        """What is marked in each of the images (B, C, H, W)."""
        if self.within is not None and self.within.shape != images.shape[2:]:
            raise InvalidInputError(f"within has the shape {self.within.shape}, the image {images.shape[2:]}")
        scores = self.scores(images)
        if not np.isfinite(scores).all():
            raise InvalidInputError("the module returned values that are not finite")
        return [Localization(mask, values) for mask, values in zip(self._marked(scores), scores, strict=True)]

    def _marked(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self.inside(scores > self.threshold)

    def inside(self, pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of the pixels (..., H, W) that may be marked, and are tested."""
        return pixels if self.within is None else pixels & self.within
