"""The noise schedule, and the reverse process as linear steps.

Source: Song, Meng & Ermon, Denoising Diffusion Implicit Models (ICLR 2021), eq. 12; the constants are those of
diffusers' DDIMScheduler, to the last bit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sigad.errors import InvalidInputError

TRAINING_STEPS = 1000
TIMES = (460, 345, 230, 115, 0)
"""Diffusion times of the paper: noise to 460, then five steps."""


class Step(NamedTuple):
    """One reverse step: x_s = x_t * image + predicted noise * noise + fresh noise * fresh."""

    time: int
    image: float
    noise: float
    fresh: float


class Schedule(NamedTuple):
    """x_t = image * x + fresh * e, with e standard normal, at the first time; then the steps."""

    image: float
    fresh: float
    steps: tuple[Step, ...]


def cumulative_alphas() -> torch.Tensor:
    """Cumulative products of 1 - beta, (1000,) float64, for beta linear from 1e-4 to 0.02."""
    # diffusers has the betas in single precision, and its products too.
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, TRAINING_STEPS, dtype=torch.float32).double(), 0)


def schedule(times: Sequence[int] = TIMES, eta: float = 1.0) -> Schedule:
    """The process that noises an image to ``times[0]`` and returns through ``times`` to the image.

    Parameters
    ----------
    times : decreasing diffusion times; the step from the last one returns the predicted image.
    eta : stochasticity of DDIM, in [0, 1]; 0 is deterministic.

    Raises
    ------
    InvalidInputError
        for times that do not decrease within 0..999, or eta outside [0, 1].
    """
    times = tuple(int(time) for time in times)
    if not times or list(times) != sorted(set(times), reverse=True) or times[0] >= TRAINING_STEPS or times[-1] < 0:
        raise InvalidInputError(f"times must decrease strictly within 0..{TRAINING_STEPS - 1}, not {times}")
    if not 0 <= eta <= 1:
        raise InvalidInputError(f"eta must lie in [0, 1], not {eta}")
    alphas = cumulative_alphas()
    alpha = [float(alphas[time]) for time in times] + [1.0]
    steps = []
    for time, now, then in zip(times, alpha[:-1], alpha[1:], strict=True):
        fresh = eta * ((1 - now / then) * (1 - then) / (1 - now)) ** 0.5
        # x_s = sqrt(then) x0 + sqrt(1 - then - fresh^2) eps + fresh e with x0 = (x_t - sqrt(1 - now) eps) / sqrt(now).
        image = (then / now) ** 0.5
        steps.append(Step(time, image, (1 - then - fresh**2) ** 0.5 - image * (1 - now) ** 0.5, fresh))
    return Schedule(alpha[0] ** 0.5, (1 - alpha[0]) ** 0.5, tuple(steps))
