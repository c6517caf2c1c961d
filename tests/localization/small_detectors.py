"""Small detectors for tests, trained for a moment, and direct (brute force) selection."""

import functools

import numpy as np
import torch
from torch import nn

from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
from sigad.models.diffusion.training import train


@functools.cache
def small_unet(size=8, activation="relu", channels=1):
    """A narrow U-Net, trained for some seconds; in double precision."""
    images = torch.randn(96, channels, size, size, generator=torch.Generator().manual_seed(5))
    unet, _ = train(images, seed=2, epochs=25, learning_rate=3e-3, widths=(8, 12, 16, 24), activation=activation)
    return unet.double()


def diffusion(seed, size=8, unet=None):
    return Reconstruction(unet or small_unet(size), draw_noises(np.random.default_rng([seed, 1]), (1, size, size)))


class Autoencoder(nn.Module):
    """Convolutions, max pooling, leaky ReLU, transposed convolution; for images (channels, even, even)."""

    def __init__(self, channels=1, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Conv2d(channels, 6, 3, padding=1),
                nn.BatchNorm2d(6),
                nn.LeakyReLU(0.1),
                nn.MaxPool2d(2),
                nn.Conv2d(6, 6, 3, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(6, channels, 2, stride=2),
            )

    def forward(self, x):
        return self.layers(x)


def autoencoder(channels=1, seed=0):
    return Autoencoder(channels, seed).double().eval()


def check_region(hypothesis, region, searched, points):
    """Compare a truncation region with direct selection: on a grid, and on both sides of each end point."""
    grid = np.linspace(*searched, points)
    same = hypothesis.same(grid)
    inside = ((region[:, 0] <= grid[:, None]) & (grid[:, None] <= region[:, 1])).any(1)
    np.testing.assert_array_equal(inside, same)
    # Every change between neighbours of the grid, bisected, is an end point; and so are all others: see below.
    for i in np.flatnonzero(same[1:] != same[:-1]):
        low, high = grid[i], grid[i + 1]
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if hypothesis.same([middle])[0] == same[i] else (low, middle)
        if ((grid[i] <= region) & (region <= grid[i + 1])).sum() == 1:
            assert np.abs(region - low).min() < 1e-9
    ends = region[(region > searched[0]) & (region < searched[1])]
    for end in ends:
        assert hypothesis.same([end - 2e-9, end + 2e-9]).sum() == 1
