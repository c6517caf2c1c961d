"""Coarser questions: a hypothesis about g(mask) instead of the mask, for a fixed g, conditions on g(mask) only.

Conditioning on the exact mask pins every pixel whose score is near the threshold, and the truncation region shrinks as
images grow. Nothing says that the hypothesis must be about exactly these pixels. For any g that was fixed beforehand,
the mean over g(mask), given g(mask), is tested as exactly; what is lost is resolution, what is won is power.
docs/mathematics.md, section 10.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sigad.checks import real_array, whole_number
from sigad.errors import InvalidInputError
from sigad.inference import region as rg
from sigad.inference.region import Region
from sigad.line import LineFunction, above, agreement


class CoarseMap(ABC):
    """A fixed map g from the marked pixels (H, W) to the pixels that are tested."""

    @abstractmethod
    def tested(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """g of each mask (B, H, W). Empty for an empty mask."""

    @abstractmethod
    def conditions(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Iterable[NDArray[np.bool_]]]:
        """What makes g equal to g(mask): pixels (H, W) none of which may be marked, and sets of pixels (H, W) in each
        of which at least one must be."""

    def agreement(self, scores: LineFunction, threshold: float | Tensor, mask: NDArray[np.bool_]) -> Region:
        """Where g of the pixels whose score (H, W) exceeds the threshold, one or (H, W), is g(mask), (m, 2), within the
        window."""
        output, intervals = above(scores, threshold)
        within = lambda pixels: intervals[pixels.ravel()[output]]  # noqa: E731
        clear, needed = self.conditions(mask)
        hit = [rg.as_region(within(pixels)) for pixels in needed]
        found = rg.covered_at_least(np.concatenate(hit), len(hit))
        return rg.intersection(found, rg.complement(rg.as_region(within(clear))))


class Pixels(CoarseMap):
    """The mask itself: the paper's question."""

    def tested(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return masks

    def conditions(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Iterable[NDArray[np.bool_]]]:
        return ~mask, (np.arange(mask.size).reshape(mask.shape) == pixel for pixel in np.flatnonzero(mask))

    def agreement(self, scores: LineFunction, threshold: float | Tensor, mask: NDArray[np.bool_]) -> Region:
        return agreement(scores, threshold, torch.as_tensor(mask))


PIXELS = Pixels()


class Parts(CoarseMap):
    """The parts of a fixed partition that hold a marked pixel, for a fixed atlas of brain areas or product parts.

    ``labels`` (H, W) int: pixels of equal number are one part.
    """

    def __init__(self, labels: ArrayLike):
        labels = np.asarray(labels)
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size:
            raise InvalidInputError("the labels of the parts must be whole numbers, of shape (H, W)")
        names, number = np.unique(labels, return_inverse=True)
        self.count, self.number = len(names), number.reshape(labels.shape)

    def _marked(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which parts hold a marked pixel, (B, count)."""
        if masks.shape[1:] != self.number.shape:
            raise InvalidInputError(f"the parts have the shape {self.number.shape}, the image {masks.shape[1:]}")
        marked = np.zeros((len(masks), self.count), bool)
        which, *place = np.nonzero(masks)
        marked[which, self.number[tuple(place)]] = True
        return marked

    def tested(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return self._marked(masks)[:, self.number]

    def conditions(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Iterable[NDArray[np.bool_]]]:
        marked = self._marked(mask[None])[0]
        return ~marked[self.number], [self.number == part for part in np.flatnonzero(marked)]


class Blocks(CoarseMap):
    """The blocks of ``size`` x ``size`` pixels that hold a marked pixel; those at the right and the lower border are
    cut off where ``size`` does not divide the image."""

    def __init__(self, size: int):
        self.size = whole_number(size, "resolution", least=1)

    def _parts(self, shape: tuple[int, int]) -> Parts:
        row, column = (np.arange(n) // self.size for n in shape)
        return Parts(row[:, None] * shape[1] + column)

    def tested(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return self._parts(masks.shape[1:]).tested(masks)

    def conditions(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Iterable[NDArray[np.bool_]]]:
        return self._parts(mask.shape).conditions(mask)


class BoundingBox(CoarseMap):
    """The smallest rectangle that holds all marked pixels."""

    def tested(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        inside = []
        for axis in (1, 2):  # rows that hold a marked pixel, and columns
            some = np.logical_or.reduce(masks, axis=3 - axis)
            inside.append(np.maximum.accumulate(some, 1) & np.maximum.accumulate(some[:, ::-1], 1)[:, ::-1])
        return inside[0][:, :, None] & inside[1][:, None, :]

    def conditions(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Iterable[NDArray[np.bool_]]]:
        box = self.tested(mask[None])[0]
        row, column = np.indices(mask.shape)
        ends = [(place, end) for place in (row, column) for end in (place[box].min(), place[box].max())]
        return ~box, [box & (place == end) for place, end in ends]


def parse_resolution(resolution: int | ArrayLike | CoarseMap) -> CoarseMap:
    """A coarse map from the size of its blocks (1: pixels), the labels (H, W) of its parts, or itself."""
    if isinstance(resolution, CoarseMap):
        return resolution
    if real_array(resolution, "resolution").ndim:
        return Parts(resolution)
    size = whole_number(resolution, "resolution", least=1)
    return PIXELS if size == 1 else Blocks(size)
