"""A plain convolutional autoencoder: a second detector, faster than a diffusion model, piecewise linear as well."""

from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.errors import ConfigurationError
from sigad.models.fitting import Epoch, fit, training_images
from sigad.models.saved import save
from sigad.models.sizes import require_divisible


class Autoencoder(nn.Module):
    """conv3x3, batch norm, ReLU and average pooling by 2 for each entry of ``widths``; a bottleneck of ``code``
    channels; and as many bilinear upsamplings by 2 and convolutions. Without skips: what does not fit through the
    bottleneck is lost. Saved by ``save_pretrained``, and read by :func:`sigad.models.saved.restore`.

    Args:
        channels: of the image.
        widths: channels of the blocks.
        code: channels of the bottleneck.

    Raises:
        ConfigurationError: without widths.
    """

    def __init__(self, channels: int = 1, widths: tuple[int, ...] = (16, 32, 64), code: int = 8):
        super().__init__()
        if not isinstance(widths, tuple | list) or not widths:
            raise ConfigurationError(f"widths must name the channels of at least one block, not {widths!r}")
        self.config = {"channels": channels, "widths": tuple(widths), "code": code}
        block = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())  # noqa: E731
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(block(i, o), nn.AvgPool2d(2))
                for i, o in zip((channels, *widths[:-1]), widths, strict=True)
            ),
            nn.Conv2d(widths[-1], code, 1),
        )
        self.decoder = nn.Sequential(
            *(
                nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), block(i, o))
                for i, o in zip((code, *widths[:0:-1]), widths[::-1], strict=True)
            ),
            nn.Conv2d(widths[0], channels, 1),
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the network into a folder: config.json and safetensors."""
        save(self, self.config, folder)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of x (B, C, H, W), in the same shape; H and W divisible by 2^(number of widths)."""
        require_divisible(x, len(self.encoder) - 1)  # all but the last halve it
        return self.decoder(self.encoder(x))


def train(
    images: ArrayLike | Tensor,
    *,
    seed: int,
    epochs: int = 200,
    checkpoint: str | Path | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    **architecture,
) -> tuple[Autoencoder, list[Epoch]]:
    """Train an autoencoder on images (N, C, H, W) by the mean squared error: see :func:`sigad.models.fitting.fit`."""
    images = training_images(images)
    return fit(
        lambda: Autoencoder(channels=images.shape[1], **architecture),
        lambda network, batch, _: F.mse_loss(network(batch), batch),
        images,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        checkpoint=checkpoint,
        device=device,
    )
