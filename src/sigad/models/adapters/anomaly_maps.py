"""Models that map images to anomaly maps, such as those of anomalib, for :func:`sigad.selective_test`."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.checks import real_number, whole_number
from sigad.errors import DetectorError, InvalidInputError


def marks(model: nn.Module, threshold: float, *, resolution: int = 1) -> Callable[[Tensor], Tensor]:
    """The blocks that hold a pixel above the threshold: a function of images (m, C, H, W) to (m, H', W') bool.

    Parameters
    ----------
    model : in evaluation mode; returns maps (m, H, W) or (m, 1, H, W), or an object whose ``anomaly_map`` they are: the
        torch model of an anomalib model (``Patchcore(...).model``), once fitted.
    threshold : of the map; must have been fixed without the data under test.
    resolution : side of the blocks; 1 for pixels. The coarser the question, the more power to answer it.

    Raises
    ------
    InvalidInputError
        for what is no module in evaluation mode, and settings that are no numbers.
    DetectorError
        while testing, for a model that returns no maps.
    """
    _in_evaluation_mode(model)
    threshold, resolution = real_number(threshold, "threshold"), whole_number(resolution, "resolution", least=1)

    def run(images: Tensor) -> Tensor:
        maps = model(images)
        maps = getattr(maps, "anomaly_map", maps)
        if maps.ndim < 3 or maps.numel() != len(images) * maps.shape[-2:].numel():
            raise DetectorError(f"the model must return maps (m, H, W) or (m, 1, H, W), not {tuple(maps.shape)}")
        maps = maps.reshape(len(images), 1, *maps.shape[-2:])
        return F.max_pool2d(maps, resolution, ceil_mode=True)[:, 0] > threshold

    return run


def flags(model: nn.Module, threshold: float) -> Callable[[Tensor], Tensor]:
    """Which images have a score above the threshold, for :func:`sigad.instance_test`; the score is ``pred_score``."""
    _in_evaluation_mode(model)
    threshold = real_number(threshold, "threshold")
    return lambda images: model(images).pred_score.reshape(-1) > threshold


def _in_evaluation_mode(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidInputError(
            f"the model must be a torch.nn.Module, not {type(model).__name__}; of anomalib, Patchcore(...).model"
        )
    if any(module.training for module in model.modules()):
        raise InvalidInputError("the model is in training mode: call model.eval() first")


def against_rest(shape: Sequence[int]) -> Callable[[NDArray[np.bool_]], NDArray[np.float64] | None]:
    """The contrast of an image (C, H, W): the mean over the marked blocks minus the mean over all others.

    None where nothing or everything is marked, so that there is nothing to test.
    """

    def contrast(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        inside = np.broadcast_to(pixels(mask, shape[-2:]), shape)
        return inside / inside.sum() - ~inside / (~inside).sum() if 0 < inside.sum() < inside.size else None

    return contrast


def against_reference(shape: Sequence[int]) -> Callable[[NDArray[np.bool_]], NDArray[np.float64] | None]:
    """The contrast of an image stacked on a normal reference, (2, C, H, W): the difference of the means over the marked
    blocks. The detector then is ``lambda pair: detect(pair[:, 0])``. None where nothing is marked."""

    def contrast(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        weights = np.broadcast_to(pixels(mask, shape[-2:]), shape[-3:]) / 1.0
        return np.stack([weights, -weights]) / weights.sum() if mask.any() else None

    return contrast


def pixels(mask: NDArray[np.bool_], shape: Sequence[int]) -> NDArray[np.bool_]:
    """The pixels (H, W) of the marked blocks (H', W')."""
    side = -(-shape[0] // mask.shape[0])
    return mask.repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]
