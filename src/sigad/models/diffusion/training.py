"""Training of the noise predictor.

Source: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models (2020), algorithm 1; settings of Katsuoka et al.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.models.diffusion.pretrained import PiecewiseLinearUNet
from sigad.models.diffusion.schedule import TRAINING_STEPS, cumulative_alphas
from sigad.models.fitting import Epoch, fit, training_images, usable
from sigad.seeds import Streams


def train(
    images: ArrayLike | Tensor,
    *,
    seed: int,
    epochs: int = 1000,
    checkpoint: str | Path | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    learning_rate: float = 3e-4,
    **architecture,
) -> tuple[PiecewiseLinearUNet, list[Epoch]]:
    """Train a U-Net to predict the noise in noised images: see :func:`sigad.models.fitting.fit`.

    Parameters
    ----------
    images : (N, C, H, W) training images.
    epochs, batch_size, learning_rate : of Adam; the defaults are the paper's.
    architecture : of :class:`~sigad.models.diffusion.unet.UNet`.

    Returns
    -------
    The network in eval mode on the CPU, and the loss curve: mean squared error of the predicted noise.
    """
    images, device = training_images(images), usable(device)
    alphas = cumulative_alphas().float().to(device)

    def loss(unet: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        # Drawn on the CPU, the same for every device.
        noise = torch.randn(batch.shape, generator=generator).to(device)
        times = torch.randint(TRAINING_STEPS, (len(batch),), generator=generator).to(device)
        alpha = alphas[times][:, None, None, None]
        noised = alpha.sqrt() * batch + (1 - alpha).sqrt() * noise
        return F.mse_loss(unet(noised.contiguous(memory_format=torch.channels_last), times), noise)

    return fit(
        lambda: PiecewiseLinearUNet(channels=images.shape[1], **architecture),
        loss,
        images,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        checkpoint=checkpoint,
        device=device,
    )


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
