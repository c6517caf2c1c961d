"""Training of the noise predictor, resumable.

Source: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models (2020), algorithm 1; settings of Katsuoka et al.
"""

import io
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sigad.data.files import write_whole
from sigad.errors import InvalidInputError
from sigad.models.diffusion.schedule import TRAINING_STEPS, cumulative_alphas
from sigad.models.diffusion.unet import PiecewiseLinearUNet
from sigad.optional import needs
from sigad.study.seeds import Streams

log = logging.getLogger(__name__)

SAVE_EVERY = TELL_EVERY = 60.0
"""Seconds between checkpoints, and between lines in the log."""


class Epoch(NamedTuple):
    """One line of the loss curve: mean squared error of the predicted noise, and wall time of the epoch."""

    epoch: int
    loss: float
    seconds: float


def train(
    images: Tensor,
    *,
    seed: int,
    epochs: int = 1000,
    batch_size: int = 32,
    learning_rate: float = 3e-4,
    checkpoint: str | Path | None = None,
    device: torch.device | str = "cpu",
    **architecture,
) -> tuple[PiecewiseLinearUNet, list[Epoch]]:
    """Train a U-Net to predict the noise in noised images.

    Every epoch has a random stream of its own, so that a resumed training gives what an uninterrupted one gives (to the
    last bit on a CPU).

    Parameters
    ----------
    images : (N, C, H, W) training images.
    seed : of the initial weights, of the order of the images and of all noises.
    epochs, batch_size, learning_rate : of Adam; the defaults are the paper's.
    checkpoint : file in which the state is kept, once a minute and at the end; training resumes from it if it is there
        and belongs to the same settings.
    device : "cpu" or "cuda".
    architecture : of :class:`~sigad.models.diffusion.unet.PiecewiseLinearUNet`.

    Returns
    -------
    The network in eval mode on the CPU, and the loss curve.

    Raises
    ------
    InvalidInputError
        for images that are not (N, C, H, W).
    StorageError
        when a checkpoint cannot be written, with the cause.
    """
    if images.ndim != 4 or not len(images):
        raise InvalidInputError(f"images must have shape (N, C, H, W), not {tuple(images.shape)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = PiecewiseLinearUNet(channels=images.shape[1], **architecture).to(device).train()
    optimizer = torch.optim.Adam(unet.parameters(), lr=learning_rate)
    settings = repr((seed, batch_size, learning_rate, tuple(images.shape), sorted(architecture.items())))
    curve = _resumed(checkpoint, settings, unet, optimizer, device)
    alphas = cumulative_alphas().float().to(device)
    images = images.to(device, torch.float32)
    saved = told = time.monotonic()
    for epoch in _with_progress(range(len(curve), epochs), epochs):
        started = time.perf_counter()
        losses = [
            _step(unet, optimizer, images[batch], alphas, noise, times)
            for batch, noise, times in _batches(images, batch_size, seed, epoch)
        ]
        # In one transfer at the end of the epoch, so that a GPU does not wait.
        curve.append(Epoch(epoch, float(torch.stack(losses).mean()), time.perf_counter() - started))
        if time.monotonic() - told > TELL_EVERY:
            left = (epochs - len(curve)) * statistics.median(past.seconds for past in curve[-50:]) / 60
            log.info("epoch %d of %d, loss %.4f, about %.0f min to go", len(curve), epochs, curve[-1].loss, left)
            told = time.monotonic()
        if checkpoint is not None and (time.monotonic() - saved > SAVE_EVERY or epoch == epochs - 1):
            _save(checkpoint, settings, unet, optimizer, curve)
            saved = time.monotonic()
    return unet.cpu().eval(), curve


def train_on_noise(
    size: int, *, activation: str, replica: int, seed: int, images: int, checkpoint: str | Path, **settings
) -> tuple[PiecewiseLinearUNet, list[Epoch]]:
    """The network of the synthetic experiments: trained on images (1, size, size) from N(0, I), on a GPU if any.

    ``replica`` numbers independently trained networks, ``seed`` is the root seed, ``images`` how many there are;
    ``settings`` are those of :func:`train`.
    """
    rng = Streams(seed, "train_diffusion", f"size={size}_activation={activation}", replica).data()
    return train(
        torch.from_numpy(rng.standard_normal((images, 1, size, size), dtype=np.float32)),
        seed=int(rng.integers(2**31)),
        checkpoint=checkpoint,
        device="cuda" if torch.cuda.is_available() else "cpu",
        activation=activation,
        **settings,
    )


def _batches(images: Tensor, size: int, seed: int, epoch: int):
    """Indices, noises and times of the batches of one epoch; drawn on the CPU, the same for every device."""
    stream = np.random.SeedSequence(seed, spawn_key=(epoch,)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(stream[0] >> 1))
    order = torch.randperm(len(images), generator=generator)
    for batch in order.split(size):
        noise = torch.randn(len(batch), *images.shape[1:], generator=generator)
        times = torch.randint(TRAINING_STEPS, (len(batch),), generator=generator)
        yield batch.to(images.device), noise.to(images.device), times.to(images.device)


def _step(unet, optimizer, images: Tensor, alphas: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    alpha = alphas[times][:, None, None, None]
    noised = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
    loss = F.mse_loss(unet(noised.contiguous(memory_format=torch.channels_last), times), noise)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _save(path: str | Path, settings: str, unet, optimizer, curve: list[Epoch]) -> None:
    state = {"settings": settings, "unet": unet.state_dict(), "optimizer": optimizer.state_dict()}
    buffer = io.BytesIO()  # PyTorch's own writer hides why a file cannot be written
    torch.save(state | {"curve": [tuple(epoch) for epoch in curve]}, buffer)
    write_whole(path, buffer.getvalue(), way_out="make room and start again, from what was saved last")


def _resumed(path: str | Path | None, settings: str, unet, optimizer, device) -> list[Epoch]:
    if path is None or not Path(path).is_file():
        return []
    state = torch.load(path, map_location=device, weights_only=True)
    if state["settings"] != settings:
        return []
    unet.load_state_dict(state["unet"])
    optimizer.load_state_dict(state["optimizer"])
    return [Epoch(*epoch) for epoch in state["curve"]]


def _with_progress(epochs: range, total: int):
    with needs("diffusion"):
        from tqdm import tqdm

    return tqdm(epochs, total=total, initial=total - len(epochs), unit="epoch", disable=not sys.stderr.isatty())
