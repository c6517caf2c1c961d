"""Reconstruction of an image by a diffusion model whose noises are fixed: a deterministic map, piecewise linear."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sigad.checks import generator
from sigad.errors import InvalidInputError
from sigad.models.diffusion.schedule import TIMES, schedule


class Reconstruction(nn.Module):
    """Noises an image, then removes the noise in a few steps; all noises are drawn beforehand and kept as a buffer.

    Given the noises, the reconstruction is a deterministic function of the image, to which a test can condition.

    Parameters
    ----------
    unet : predicts the noise: ``unet(x, time)`` for x (B, C, H, W) and an int.
    noises : (len(times), C, H, W) standard normal: the first noises the image, the others enter the steps.
    times, eta : as in :func:`sigad.models.diffusion.schedule.schedule`.

    Source: Katsuoka et al. (TMLR 2026), section 2.
    """

    noises: Tensor

    def __init__(self, unet: nn.Module, noises: Tensor, *, times: Sequence[int] = TIMES, eta: float = 1.0):
        super().__init__()
        self.schedule = schedule(times, eta)
        if not isinstance(unet, nn.Module):
            raise InvalidInputError(f"unet must be a torch.nn.Module, not {type(unet).__name__}: wrap it in one")
        if not isinstance(noises, Tensor) or noises.ndim != 4 or len(noises) != len(self.schedule.steps):
            raise InvalidInputError(f"noises must be a tensor ({len(self.schedule.steps)}, C, H, W): see draw_noises")
        self.unet = unet
        self.register_buffer("noises", noises)
        self.train(unet.training)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of x (B, C, H, W), in the same shape."""
        y = self.schedule.image * x + self.schedule.fresh * self.noises[0]
        for i, step in enumerate(self.schedule.steps, start=1):
            y = step.image * y + step.noise * self.unet(y, step.time)
            if step.fresh:
                y = y + step.fresh * self.noises[i]
        return y


def draw_noises(rng: np.random.Generator, shape: Sequence[int], times: Sequence[int] = TIMES) -> Tensor:
    """Noises (len(times), *shape) in double precision from a numpy Generator."""
    return torch.from_numpy(generator(rng).standard_normal((len(times), *shape)))
