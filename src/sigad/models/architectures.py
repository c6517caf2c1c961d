"""Architectures of networks: two small ones, torchvision's by name, and the training of the smallest."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.errors import ConfigurationError
from sigad.models.vision import import_torchvision

logger = logging.getLogger(__name__)

# What the small CNN of the quick run expects: gray pixels 0..255, centred and scaled.
TRAINED: dict[str, Any] = {"mean": (128.0,), "std": (64.0,)}


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that subsamples and pads with zero channels (He et al. 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet of depth 6 blocks + 2 for 32x32 images (He et al. 2016, section 4.2); 20 layers for three blocks."""

    def __init__(self, blocks: int = 3, classes: int = 10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = self._layer(blocks, 16, 16, 1)
        self.layer2 = self._layer(blocks, 16, 32, 2)
        self.layer3 = self._layer(blocks, 32, 64, 2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _layer(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        rest = [CifarBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
        return nn.Sequential(CifarBlock(inputs, outputs, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def small_cnn(channels: int = 1, classes: int = 12) -> nn.Sequential:
    """The small network of the quick run: three convolutions with batch norm and ReLU, and max pooling between."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(channels, 16),
        nn.MaxPool2d(2),
        *block(16, 32),
        nn.MaxPool2d(2),
        *block(32, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


def build(architecture: str) -> nn.Module:
    """An architecture without weights: ``small_cnn``, ``cifar_resnet20``, the name of a torchvision model, or
    ``pixels``, which gives back what it sees."""
    if architecture == "pixels":
        return nn.Identity()
    if architecture == "small_cnn":
        return small_cnn()
    if architecture == "cifar_resnet20":
        return CifarResNet(3)
    models = import_torchvision().models
    if architecture not in models.list_models(module=models):
        raise ConfigurationError(
            f"there is no architecture {architecture!r}: choose small_cnn, cifar_resnet20, pixels, or a "
            "torchvision model such as resnet18"
        )
    return models.get_model(architecture, weights=None)


def train_small_cnn(
    images: Mapping[str, NDArray[np.uint8]], *, seed: int, steps: int = 600, size: int = 16, batch: int = 64
) -> nn.Sequential:
    """Train :func:`small_cnn` to tell textures and quarter turns apart, from random crops; about twenty seconds.

    The images must be used for nothing else: features that saw an instance under test would be part of the selection.

    Parameters
    ----------
    images : (H, W) gray images by name.
    seed : of the initial weights and the crops.
    steps, size, batch : number of gradient steps, side of the crops, crops per step.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = small_cnn(1, 4 * len(images)).train()
    pixels = list(images.values())
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        which, turn = rng.integers(len(pixels), size=batch), rng.integers(4, size=batch)
        crops = []
        for i, t in zip(which, turn, strict=True):
            row, column = (rng.integers(side - size + 1) for side in pixels[i].shape)
            crops.append(np.rot90(pixels[i][row : row + size, column : column + size], t))
        x = (torch.from_numpy(np.stack(crops)[:, None].astype(np.float32)) - TRAINED["mean"][0]) / TRAINED["std"][0]
        loss = F.cross_entropy(network(x), torch.from_numpy(4 * which + turn))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    logger.info("trained a small CNN: cross entropy of the last batch %.3f", loss.item())
    return network.eval()
