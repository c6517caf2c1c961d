"""The networks that benchmarks/line.py measures."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """conv3x3, batch norm, ReLU, with the time embedding added to the input."""

    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.time = nn.Linear(embedding, inputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x + self.time(time)[:, :, None, None])))


class UNet(nn.Module):
    """The noise predictor of diffusion-based anomaly localization: 32-64-128-256 channels, concatenated skips."""

    def __init__(self, channels: int = 1, widths: tuple[int, ...] = (32, 64, 128, 256), embedding: int = 100):
        super().__init__()
        self.embedding = embedding
        self.time = nn.Sequential(nn.Linear(embedding, embedding), nn.ReLU(), nn.Linear(embedding, embedding))
        ins = (channels, *widths)
        self.down = nn.ModuleList(Block(i, o, embedding) for i, o in zip(ins[:-2], widths[:-1], strict=True))
        self.middle = Block(widths[-2], widths[-1], embedding)
        self.up = nn.ModuleList(Block(i + o, o, embedding) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.out = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = torch.arange(self.embedding // 2, device=t.device, dtype=self.out.weight.dtype)
        angle = t[:, None] * 1e-4 ** (2 * half / self.embedding)
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
        skips = []
        for block in self.down:
            x = block(x, time)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.middle(x, time)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = block(torch.cat([x, skip], 1), time)
        return self.out(x)


class Localizer(nn.Module):
    """Score map of the reconstruction: noise to t = 460, five DDIM steps with all noises fixed, 3x3 mean filter."""

    STEPS = (460, 345, 230, 115, 0)

    def __init__(self, unet: UNet, size: int, generator: torch.Generator):
        super().__init__()
        self.unet = unet
        self.register_buffer("abar", torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0))
        self.register_buffer("noise", torch.randn(6, 1, 1, size, size, generator=generator))

    def reconstruct(self, x: Tensor) -> Tensor:
        abar = [float(self.abar[t]) for t in self.STEPS] + [1.0]
        y = abar[0] ** 0.5 * x + (1 - abar[0]) ** 0.5 * self.noise[0]
        for i, t in enumerate(self.STEPS):
            now, then = abar[i], abar[i + 1]
            eps = self.unet(y, torch.full((1,), float(t), dtype=self.noise.dtype))
            x0 = (y - (1 - now) ** 0.5 * eps) / now**0.5
            if then == 1.0:
                return x0
            c1 = ((1 - now / then) * (1 - then) / (1 - now)) ** 0.5
            y = then**0.5 * x0 + c1 * self.noise[i + 1] + (1 - then - c1**2) ** 0.5 * eps
        raise AssertionError

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.reconstruct(x) - x, 3, 1, 1).abs()


def trained_unet(size: int, steps: int, seed: int = 0) -> UNet:
    """Train the U-Net on noise prediction for images N(0, I): Adam 3e-4, batch 32, `steps` steps."""
    torch.manual_seed(seed)
    unet, abar = UNet().train(), torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    images, optimizer = torch.randn(1000, 1, size, size), torch.optim.Adam(unet.parameters(), 3e-4)
    for _ in range(steps):
        t, noise = torch.randint(1000, (32,)), torch.randn(32, 1, size, size)
        a = abar[t][:, None, None, None]
        x = a.sqrt() * images[torch.randint(1000, (32,))] + (1 - a).sqrt() * noise
        loss = F.mse_loss(unet(x.contiguous(memory_format=torch.channels_last), t.float()), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return unet.eval()


def localization(unet: UNet, size: int, seed: int = 0) -> tuple[Localizer, Tensor, Tensor, Tensor, float]:
    """A detector and an image with a detection: (score map, x at z = 0, direction, observed mask, statistic)."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        detector = Localizer(unet, size, generator).eval()
        x, reference = torch.randn(2, 1, size, size, generator=generator)
        with torch.no_grad():
            mask = detector(x[None])[0] > 0.8
        if mask.any():
            count = mask.sum()
            direction = mask.float() / (2 * count).sqrt()
            statistic = (x[mask].mean() - reference[mask].mean()) * (count / 2).sqrt()
            return detector, x - statistic * direction, direction, mask, float(statistic)
