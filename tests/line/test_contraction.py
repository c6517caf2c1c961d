"""Convolutions of small images: the same numbers in whatever order they are summed, and the order that is meant."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sigad.line import LineFunction, contraction, restrict

G = torch.Generator().manual_seed(5)
POINTS = 120


def rand(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=G, dtype=torch.float64).to(dtype)


def function(*shape, dtype=torch.float64, points=POINTS):
    return LineFunction(torch.linspace(-1, 1, points, dtype=torch.float64), rand(points, *shape, dtype=dtype))


def orders(monkeypatch) -> list[str]:
    """Fills with the order that each convolution takes from now on."""
    taken, reordered, matrix = [], contraction._reordered, contraction._matrix

    def watched(*args):
        values = reordered(*args)
        taken.append("library" if values is None else "mixing" if taken[-1:] != ["making"] else "matrix")
        return values

    monkeypatch.setattr(contraction, "_reordered", watched)
    monkeypatch.setattr(contraction, "_matrix", lambda *args: taken.append("making") or matrix(*args))
    return taken


BILINEAR = {"scale_factor": 2, "mode": "bilinear"}
CASES = [  # convolution, its options, the interpolation before it, channels, size, the order
    (F.conv2d, {"padding": 1}, None, 4, (2, 2), "matrix"),
    (F.conv2d, {"padding": 1}, None, 4, (1, 1), "matrix"),
    (F.conv2d, {"padding": 2, "stride": 2, "dilation": 2}, None, 4, (2, 2), "matrix"),
    (F.conv2d, {"padding": "same"}, None, 4, (1, 3), "matrix"),
    (F.conv2d, {"padding": 1}, None, 4, (3, 3), "library"),
    (F.conv3d, {"padding": 1}, None, 2, (2, 2, 2), "matrix"),
    (F.conv1d, {"padding": 1}, None, 3, (1,), "matrix"),
    (F.conv2d, {"padding": 1, "groups": 2}, None, 4, (2, 2), None),
    (F.conv2d, {"padding": 1}, BILINEAR, 4, (1, 1), "matrix"),
    (F.conv2d, {"padding": 1}, BILINEAR, 40, (2, 2), "mixing"),
    (F.conv2d, {"padding": 1}, BILINEAR, 40, (2, 3), "mixing"),
    (F.conv2d, {"padding": 1}, BILINEAR, 40, (4, 4), "library"),
    (F.conv2d, {"padding": (2, 1)}, {"scale_factor": 2, "mode": "nearest"}, 40, (3, 2), "mixing"),
    (F.conv2d, {"padding": 1}, {"size": (5, 7), "mode": "bilinear", "align_corners": True}, 40, (3, 2), "mixing"),
    (F.conv2d, {"padding": 1}, {"size": (6, 6), "mode": "bicubic"}, 40, (3, 2), "mixing"),
    (F.conv2d, {"padding": 1}, {"size": (8, 8), "mode": "area"}, 40, (3, 2), "mixing"),
    (F.conv1d, {"padding": 1}, {"scale_factor": 4, "mode": "linear"}, 40, (4,), "mixing"),
    (F.conv3d, {"padding": 1}, {"scale_factor": 2, "mode": "trilinear"}, 40, (2, 3, 2), "mixing"),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", ""])
@pytest.mark.parametrize(("conv", "options", "resize", "channels", "size", "order"), CASES)
def test_every_order_gives_the_convolution(monkeypatch, conv, options, resize, channels, size, order, bias, dtype):
    taken = orders(monkeypatch)
    f = function(1, channels, *size, dtype=dtype)
    weight = rand(6, channels // options.get("groups", 1), *[3] * len(size), dtype=dtype)
    b = rand(6, dtype=dtype) if bias else None

    def operation(x):
        return conv(x if resize is None else F.interpolate(x, **resize), weight, b, **options)

    result = operation(f)
    assert taken[-1:] == ([] if order is None else [order])
    expected = torch.stack([operation(value) for value in f.values])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(result.values, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def test_few_points_are_not_worth_a_matrix(monkeypatch):
    taken = orders(monkeypatch)
    F.conv2d(function(1, 4, 2, 2, points=30), rand(6, 4, 3, 3), padding=1)
    assert taken == ["library"]


class Small(nn.Module):
    """Down to a single pixel and up again, with skip connections: all orders in one network."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 32, 3, padding=1)])
        self.middle = nn.Conv2d(32, 48, 3, padding=1)
        self.up = nn.ModuleList([nn.Conv2d(48 + 32, 32, 3, padding=1), nn.Conv2d(32 + 24, 24, 3, padding=1)])
        self.time = nn.Parameter(torch.randn(1, 80, 1, 1))
        self.out = nn.Conv2d(24, 1, 1)

    def forward(self, x):
        skips = []
        for conv in self.down:
            x = F.relu(conv(x))
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = F.relu(self.middle(x))
        for conv, skip in zip(self.up, reversed(skips), strict=True):
            x = torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), skip], 1)
            x = F.relu(conv(x + self.time[:, : x.shape[1]]))
        return self.out(x)


def test_a_network_in_all_orders(monkeypatch):
    taken = orders(monkeypatch)
    torch.manual_seed(1)
    net, x, direction = Small().eval().double(), rand(1, 4, 4), rand(1, 4, 4)
    f = restrict(net, x, direction, (-3.0, 3.0), dtype=torch.float64)
    assert {"library", "matrix", "mixing"} <= set(taken) and f.pieces > 150
    t = torch.linspace(-3, 3, 301, dtype=torch.float64)
    direct = torch.stack([net((x + s * direction)[None])[0] for s in t]).detach()
    torch.testing.assert_close(f(t), direct, rtol=1e-10, atol=1e-12)


def test_a_matrix_does_not_outlive_the_propagation():
    """Parameters may be changed between two of them, even by way of .data, which torch does not count."""
    torch.manual_seed(1)
    net, x, direction = Small().eval().double(), rand(1, 4, 4), rand(1, 4, 4)
    restrict(net, x, direction, (-3.0, 3.0), dtype=torch.float64)
    for parameter in net.parameters():
        parameter.data *= 1.5
    f = restrict(net, x, direction, (-3.0, 3.0), dtype=torch.float64)
    torch.testing.assert_close(f(0.7), net((x + 0.7 * direction)[None])[0].detach(), rtol=1e-10, atol=1e-12)


def test_parameters_changed_within_a_propagation_are_seen():
    class Changing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            x = F.avg_pool2d(x, 2)
            first = self.conv(x)
            with torch.no_grad():
                self.conv.weight.mul_(2.0)
            second = self.conv(x)
            with torch.no_grad():
                self.conv.weight.mul_(0.5)
            return F.relu(first) - F.relu(second)

    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), Changing()).double()
    x, direction = rand(4, 2, 2), 40 * rand(4, 2, 2)
    f = restrict(net, x, direction, (-1.0, 1.0), dtype=torch.float64)
    for t in (-1.0, -0.3, 0.77):
        expected = net((x + t * direction)[None])[0].detach()
        torch.testing.assert_close(f(t), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("operation", [
    lambda up, x: F.relu_(up) + x.mean(),
    lambda up, x: up * 2 + up[:, :, ::2].sum() + F.conv2d(up, torch.ones(3, 4, 3, 3).double()).mean(),
    lambda up, x: F.conv2d(torch.cat([up, up + 1], 1), torch.ones(3, 8, 3, 3).double(), padding=1),
    lambda up, x: F.conv2d(torch.cat([up], 1) + torch.ones(4, 1, 1).double(), torch.ones(3, 4, 3, 3).double()),
    lambda up, x: F.conv2d(F.interpolate(torch.cat([up, 2 * up], 1), (3, 5)), torch.ones(3, 8, 3, 3).double()),
    lambda up, x: F.batch_norm(up, torch.ones(4).double(), torch.ones(4).double()),
    lambda up, x: F.conv2d(F.interpolate(up, scale_factor=0.5), torch.ones(3, 4, 3, 3).double(), padding=1),
    lambda up, x: F.conv_transpose2d(up, torch.ones(4, 3, 2, 2).double(), stride=2),
    lambda up, x: up.add_(1.0) + F.avg_pool2d(up, 2).sum(),
])  # fmt: skip
def test_an_interpolation_that_waits_is_the_interpolation(operation):
    f = function(1, 4, 3, 2)
    result = operation(F.interpolate(f, scale_factor=2, mode="bilinear"), f)
    for t in (-1.0, -0.3, 0.77):
        expected = operation(F.interpolate(f(t), scale_factor=2, mode="bilinear"), f(t))
        torch.testing.assert_close(result(t), expected, rtol=1e-10, atol=1e-12)
