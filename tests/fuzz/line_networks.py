"""Random networks, of layers as they are found in detectors."""

import torch
from torch import Tensor, nn

from sigad.line import piecewise
from tests.fuzz import fuzzer
from tests.fuzz.line_oracle import hold


class Choice:
    """Random choices by a generator of its own."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def of(self, *options):
        return options[self.integer(0, len(options) - 1)]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)


class Joined(nn.Module):
    """A layer beside a way around it."""

    def __init__(self, inner: nn.Module, join: str):
        super().__init__()
        self.inner, self.join = inner, join

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.join == "cat":
            return torch.cat([x, y], 1) if x.shape[2:] == y.shape[2:] else y
        if x.shape != y.shape:
            return y
        joins = {"add": torch.add, "max": torch.maximum, "sub": torch.sub, "iadd": lambda a, b: a.add_(b)}
        return joins[self.join](y, x)


def activation(choice: Choice, channels: int) -> nn.Module:
    inplace = choice.of(True, False)
    return choice.of(
        nn.ReLU(inplace), nn.ReLU(inplace), nn.LeakyReLU(0.1, inplace), nn.PReLU(), nn.PReLU(channels),
        nn.ReLU6(inplace),
        nn.Hardtanh(-0.4, 0.7, inplace), nn.Hardsigmoid(inplace), nn.Softshrink(0.2), nn.Threshold(0.1, 0.1, inplace),
        nn.RReLU(inplace=inplace), nn.SiLU(inplace), nn.Identity(),
    )  # fmt: skip


def norm(choice: Choice, kind, channels: int) -> nn.Module:
    layer = kind(channels)
    for value in (layer.running_mean, layer.weight.data, layer.bias.data):
        value.copy_(choice.normal(channels))
    layer.running_var.copy_(choice.normal(channels).exp())
    return layer


def spatial(choice: Choice, channels: int) -> tuple[nn.Module, int]:
    """A layer for images, and the channels that it makes."""
    more = choice.of(channels, 2, 4, 6)
    kernel = choice.of(1, 2, 3)
    padding = choice.of("zeros", "reflect", "replicate", "circular")
    kind = choice.integer(0, 12)
    if kind <= 3:
        groups = 2 if channels % 2 == 0 and more % 2 == 0 and choice.of(True, False, False) else 1
        dilation, pad = choice.of(1, 1, 2), choice.of(0, 1)
        return nn.Conv2d(channels, more, kernel, choice.of(1, 1, 2), pad, dilation, groups,
                         choice.of(True, False), padding_mode=padding if pad else "zeros"), more  # fmt: skip
    if kind == 4:
        return nn.ConvTranspose2d(channels, more, kernel, choice.of(1, 2), bias=choice.of(True, False)), more
    if kind == 5:
        return norm(choice, nn.BatchNorm2d, channels), channels
    if kind == 6:
        return nn.MaxPool2d(kernel, choice.of(1, 2), kernel // 2, ceil_mode=choice.of(True, False)), channels
    if kind == 7:
        return nn.AvgPool2d(kernel, choice.of(1, 2), 0, choice.of(True, False), choice.of(True, False)), channels
    if kind == 8:
        return choice.of(nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)(choice.of(1, 2, 3, (2, 1))), channels
    if kind == 9:
        return nn.Upsample(scale_factor=2, mode=choice.of("nearest", "bilinear", "bicubic")), channels
    if kind == 10 and channels % 4 == 0:
        return nn.PixelShuffle(2), channels // 4
    if kind == 11:
        return choice.of(nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)((1, 0, 1, 0)), channels
    return choice.of(nn.Dropout2d(), nn.Dropout(inplace=True), nn.Identity()), channels


def image_network(choice: Choice) -> tuple[nn.Module, tuple[int, ...]]:
    channels, size = choice.of(1, 2, 3), choice.of(4, 5, 6)
    shape, layers, now = (channels, size, size), [], channels
    probe = choice.normal(1, *shape)
    for _ in range(choice.integer(1, 6)):
        layer, more = spatial(choice, now)
        block = nn.Sequential(layer, activation(choice, more)) if choice.of(True, False) else layer
        join = choice.of("none", "none", "add", "cat", "max", "sub", "iadd")
        block = Joined(block, join) if join != "none" else block
        try:
            made = block.double().eval()(probe.clone())
        except RuntimeError:  # too small an image for the layer
            continue
        if 0 < made.numel() <= 1500:
            probe, now = made.detach(), made.shape[1]
            layers.append(block)
    if choice.of(True, False):
        layers += [nn.Flatten(), nn.Linear(probe.numel(), choice.of(1, 3, 8)).double(), activation(choice, 1)]
    return nn.Sequential(*layers), shape


def vector_network(choice: Choice) -> tuple[nn.Module, tuple[int, ...]]:
    inputs = choice.of(1, 2, 5)
    layers, now = [], inputs
    for _ in range(choice.integer(1, 4)):
        more = choice.of(1, 4, 8, 16)
        block = [nn.Linear(now, more, choice.of(True, False)), activation(choice, more)]
        block += [norm(choice, nn.BatchNorm1d, more)] if choice.of(True, False) else []
        inner = nn.Sequential(*block)
        layers.append(Joined(inner, choice.of("add", "cat", "max")) if more == now else inner)
        now = 2 * more if more == now and layers[-1].join == "cat" else more
    return nn.Sequential(*layers), (inputs,)


@fuzzer("line networks")
def line_networks(seed: int) -> str:
    choice = Choice(seed)
    torch.manual_seed(seed)  # for the initial weights of layers
    network, shape = choice.of(image_network, image_network, vector_network)(choice)
    network = network.double().eval()
    if any(isinstance(part, nn.SiLU) for part in network.modules()):
        network = piecewise(network)
    x, direction = choice.normal(*shape), choice.normal(*shape)
    if choice.of(True, False, False):  # on a lattice: ties, zeros, kinks that coincide
        x, direction = x.round(), direction.round()
        for parameter in network.parameters():
            parameter.data = (2 * parameter.data).round() / 2
    low = choice.of(-1.0, -0.3, 0.0)
    return hold(network, x, direction, (low, low + choice.of(0.1, 0.5, 1.0)), choice.generator)
