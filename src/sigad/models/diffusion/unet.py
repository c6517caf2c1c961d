"""The noise predictor: a U-Net that is piecewise linear in the image.

Source: Katsuoka et al. (TMLR 2026), synthetic experiments; docs/localization.md has its settings.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.errors import ConfigurationError
from sigad.models.sizes import require_divisible

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


class Block(nn.Module):
    """conv3x3, batch norm, activation; the time, through a two-layer perceptron, is added to the input."""

    def __init__(self, inputs: int, outputs: int, embedding: int, activation: type[nn.Module]):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(embedding, inputs), nn.ReLU(), nn.Linear(inputs, inputs))
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = activation()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x + self.time(time)[:, :, None, None])))


class UNet(nn.Module):
    """Predicts the noise in a noised image; piecewise linear in the image (with ``activation="relu"``).

    One block and an average pooling by 2 per entry of ``widths`` but the last, which is the bottleneck's; then as many
    bilinear upsamplings by 2, concatenations with the skip, and blocks; and a 1x1 convolution. Time enters by a
    sinusoidal embedding. Saved as :class:`~sigad.models.diffusion.pretrained.PiecewiseLinearUNet`, and read from there
    by :func:`sigad.models.saved.restore`.

    Args:
        channels: of the image.
        widths: channels of the blocks.
        embedding: length of the time embedding, even.
        activation: "relu", or "silu", which has to be replaced (:func:`sigad.line.piecewise`) before a test.

    Raises:
        ConfigurationError: for another activation, or fewer than two widths.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, ...] = (32, 64, 128, 256),
        embedding: int = 100,
        activation: str = "relu",
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigurationError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        if not isinstance(widths, tuple | list) or len(widths) < 2:
            raise ConfigurationError(f"widths must name the channels of two blocks or more, not {widths!r}")
        block = lambda inputs, outputs: Block(inputs, outputs, embedding, ACTIVATIONS[activation])  # noqa: E731
        self.embedding, self.activation = embedding, activation
        outer, inner = (channels, *widths[:-2]), widths[:-1]
        self.down = nn.ModuleList(block(i, o) for i, o in zip(outer, inner, strict=True))
        self.middle = block(widths[-2], widths[-1])
        self.up = nn.ModuleList(block(i + o, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.out = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor, time: int | Tensor) -> Tensor:
        """The noise in x (B, C, H, W) at diffusion time ``time``, an int or (B,); H and W divisible by 2^(depth)."""
        require_divisible(x, len(self.down))
        embedded = self._embedded(time)
        skips = []
        for block in self.down:
            x = block(x, embedded)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.middle(x, embedded)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = block(torch.cat([x, skip], 1), embedded)
        return self.out(x)

    def _embedded(self, time: int | Tensor) -> Tensor:
        # In double precision: in single, the angles alone would move the ends of a truncation region by 1e-5.
        weight = self.out.weight
        if not isinstance(time, Tensor):
            time = torch.full((1,), time, dtype=torch.float64, device=weight.device)  # made there, not sent there
        time = time.to(weight.device, torch.float64).reshape(-1, 1)
        half = torch.arange(self.embedding // 2, dtype=torch.float64, device=weight.device)
        angle = time * 1e-4 ** (2 * half / self.embedding)
        return torch.cat([angle.sin(), angle.cos()], 1).to(weight.dtype)
