"""Training by mini-batches, resumable: what all networks of this library share."""

import io
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sigad.checks import real_array, real_number, whole_number
from sigad.data.files import write_whole
from sigad.data.sealed import damaged
from sigad.errors import InvalidInputError
from sigad.optional import needs

log = logging.getLogger(__name__)

SAVE_EVERY = TELL_EVERY = 60.0
"""Seconds between checkpoints, and between lines in the log."""

Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
"""The loss of a network on images (B, C, H, W); what is random in it comes from the generator (on the CPU)."""


class Epoch(NamedTuple):
    """One line of the loss curve: mean loss, and wall time of the epoch."""

    epoch: int
    loss: float
    seconds: float


Network = TypeVar("Network", bound=nn.Module)


def training_images(images: ArrayLike | Tensor) -> Tensor:
    """Images (N, C, H, W) as a tensor in single precision; raises InvalidInputError for NaN and other shapes."""
    array = real_array(images, "images")
    if array.ndim != 4 or not array.size:
        raise InvalidInputError(f"images must have shape (N, C, H, W), not {array.shape}")
    return torch.from_numpy(array).float()


def usable(device: torch.device | str) -> torch.device:
    """A device; raises InvalidInputError where there is none of this name."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InvalidInputError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return found


def fit(
    build: Callable[[], Network],
    loss: Loss,
    images: ArrayLike | Tensor,
    *,
    seed: int,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float = 3e-4,
    checkpoint: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Network, list[Epoch]]:
    """Build a network and minimise its loss on images with Adam.

    Every epoch has a random stream of its own, so that a resumed training gives what an uninterrupted one gives (to the
    last bit on a CPU).

    Parameters
    ----------
    build : makes the network; the seed has been set.
    loss : to be minimised.
    images : (N, C, H, W) training images.
    seed : of the initial weights, of the order of the images and of what is random in the loss.
    checkpoint : file in which the state is kept, once a minute and at the end; training resumes from it if it is there
        and belongs to the same seed, images' shape and network.
    device : "cpu" or "cuda".

    Returns
    -------
    The network in eval mode on the CPU, and the loss curve.

    Raises
    ------
    InvalidInputError
        for images that are not (N, C, H, W), settings out of range, and a file that is no checkpoint.
    StorageError
        when a checkpoint cannot be written, with the cause.
    """
    images = training_images(images)
    seed, epochs = whole_number(seed, "seed", least=0), whole_number(epochs, "epochs", least=1)
    batch_size = whole_number(batch_size, "batch_size", least=1)
    if not real_number(learning_rate, "learning_rate") > 0:
        raise InvalidInputError(f"learning_rate must be positive, not {learning_rate}")
    device = usable(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    settings = repr((seed, batch_size, learning_rate, tuple(images.shape), getattr(network, "config", None), shapes))
    curve = _resumed(checkpoint, settings, network, optimizer, device)
    images = images.to(device)
    saved = told = time.monotonic()
    for epoch in _with_progress(range(len(curve), epochs), epochs):
        started = time.perf_counter()
        stream = np.random.SeedSequence(seed, spawn_key=(epoch,)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(stream[0] >> 1))
        order = torch.randperm(len(images), generator=generator)
        losses = []
        for batch in order.split(batch_size):
            value = loss(network, images[batch.to(device)], generator)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            losses.append(value.detach())
        # In one transfer at the end of the epoch, so that a GPU does not wait.
        curve.append(Epoch(epoch, float(torch.stack(losses).mean()), time.perf_counter() - started))
        if time.monotonic() - told > TELL_EVERY:
            left = (epochs - len(curve)) * statistics.median(past.seconds for past in curve[-50:]) / 60
            log.info("epoch %d of %d, loss %.4f, about %.0f min to go", len(curve), epochs, curve[-1].loss, left)
            told = time.monotonic()
        if checkpoint is not None and (time.monotonic() - saved > SAVE_EVERY or epoch == epochs - 1):
            _save(checkpoint, settings, network, optimizer, curve)
            saved = time.monotonic()
    return network.cpu().eval(), curve


def mirrored(images: Tensor) -> Tensor:
    """Images (N, C, H, W) and their mirror images (left and right), (2N, C, H, W): twice as many to learn from."""
    return torch.cat([images, images.flip(-1)])


def _save(path: str | Path, settings: str, network: nn.Module, optimizer, curve: list[Epoch]) -> None:
    state = {"settings": settings, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    buffer = io.BytesIO()  # PyTorch's own writer hides why a file cannot be written
    torch.save(state | {"curve": [tuple(epoch) for epoch in curve]}, buffer)
    write_whole(path, buffer.getvalue(), way_out="make room and start again, from what was saved last")


def _resumed(path: str | Path | None, settings: str, network: nn.Module, optimizer, device) -> list[Epoch]:
    if path is None or not Path(path).is_file():
        return []
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch's reader raises whatever the file makes its parts raise
        raise damaged(path, "is no checkpoint of a training") from error
    if state["settings"] != settings:
        return []
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return [Epoch(*epoch) for epoch in state["curve"]]


def _with_progress(epochs: range, total: int):
    with needs("diffusion"):
        from tqdm import tqdm

    return tqdm(epochs, total=total, initial=total - len(epochs), unit="epoch", disable=not sys.stderr.isatty())
