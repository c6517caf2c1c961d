"""The hypothesis that a marked region poses, for the engines: does the detector mark the same pixels along the line?"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sigad.errors import NumericalError
from sigad.inference import region as rg
from sigad.inference.hypothesis import PiecewiseHypothesis
from sigad.inference.region import Region
from sigad.inference.ties import EPS, SLACK
from sigad.inference.truncated import Null
from sigad.line import LineFunction, Restriction
from sigad.localization.coarse import PIXELS, CoarseMap
from sigad.localization.contrast import Contrast
from sigad.localization.detector import Detector

SINGLE = 16 * torch.finfo(torch.float32).eps
"""A score in single precision is known to so much of the largest score."""

_WORKSPACE = 256
"""A network is taken to need so many times the memory of its input."""


@dataclass(frozen=True)
class MaskHypothesis(PiecewiseHypothesis):
    """The mean over the marked pixels is that of the reference (Katsuoka et al., TMLR 2026, section 3).

    ``x`` (C, H, W) the image; ``mask`` (H, W) bool, what ``detector`` marked in it; ``contrast`` the statistic;
    ``memory_budget`` bytes that the search may take for activations; ``coarse`` the map of the mask that is conditioned
    on.
    """

    detector: Detector
    x: NDArray[np.float64]
    mask: NDArray[np.bool_]
    contrast: Contrast
    memory_budget: int = 2**30
    coarse: CoarseMap = PIXELS

    @property
    def null(self) -> Null:
        return self.contrast.null

    @property
    def statistic(self) -> float:
        return self.contrast.statistic

    def same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        step, observed = max(1, self.memory_budget // (_WORKSPACE * self.x.nbytes)), self.coarse.tested(self.mask[None])
        parts = (self.contrast.images(self.x, z[i : i + step]) for i in range(0, len(z), step))
        same = [(self.coarse.tested(self.detector.masks(part)) == observed).all((1, 2)) for part in parts]
        return np.concatenate([np.zeros(0, bool), *same])

    def restriction(self, dtype: torch.dtype) -> Restriction:
        device, direction = self.detector.device, self.contrast.direction
        start, way = (torch.as_tensor(v, device=device) for v in (self.x - self.statistic * direction, direction))
        return Restriction(self.detector.score_map, start, way, dtype=dtype, memory_budget=self.memory_budget)

    def agreement(self, part: LineFunction) -> tuple[Region, Region]:
        part, threshold = self._inside(part), self.detector.threshold
        region = self.coarse.agreement(part, threshold, self.mask)
        if part.values.dtype == torch.float64:
            return region, rg.EMPTY
        margin = SINGLE * max(float(part.values.abs().max()), abs(threshold))
        clear = torch.as_tensor(self.coarse.conditions(self.mask)[0], device=part.values.device)
        # Pixels that must not be marked are given the benefit of the doubt, or none, and so are those that must be.
        kindly, strictly = (
            self.coarse.agreement(part, threshold + torch.where(clear, way * margin, -way * margin), self.mask)
            for way in (1.0, -1.0)
        )
        return region, rg.intersection(kindly, rg.complement(strictly))

    def _inside(self, part: LineFunction) -> LineFunction:
        """Scores that never exceed the threshold outside of ``within``, where nothing is marked."""
        if self.detector.within is None:
            return part
        inside = torch.as_tensor(self.detector.within, device=part.values.device)
        return part.derive(torch.where(inside, part.values, self.detector.threshold - 1))

    def interior(self, region: Region) -> Region:
        """A region, if the statistic lies inside of it. Raises NumericalError on an end point, and where a score equals
        the threshold to rounding: it may do so on the whole line, where a reconstruction is saturated."""
        scores = self.detector.scores(self.x[None])[0]
        size = max(float(np.abs(scores).max()), float(np.abs(self.x).max()))
        equal = np.abs(scores - self.detector.threshold) <= SLACK * EPS * size
        if self.detector.inside(equal).any():
            raise NumericalError("a score equals the threshold to rounding, which decides: choose another threshold")
        return super().interior(region)

    def piece_region(self) -> Region:
        """w/o-pp: the interval around the statistic in which the scores are linear and the mask is the observed one,
        (1, 2)."""
        piece = self.piece()
        found = self.interior(rg.intersection(self.region(piece), piece))
        return rg.component(found, self.statistic)
