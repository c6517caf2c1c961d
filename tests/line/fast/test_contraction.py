"""Convolutions of small images: the same numbers in whatever order they are summed, and the order that is meant."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sigad.line import LineFunction, restrict
from sigad.line.fast import contraction

G = torch.Generator().manual_seed(5)
POINTS = 121  # not a round number of images


def rand(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=G, dtype=torch.float64).to(dtype)


def function(*shape, dtype=torch.float64, points=POINTS):
    return LineFunction(torch.linspace(-1, 1, points, dtype=torch.float64), rand(points, *shape, dtype=dtype))


def orders(monkeypatch) -> list[str]:
    """Fills with the functions that compute convolutions from now on: the last one of each made the values."""
    calls = []
    for name in ("rounded", "_matrix", "_by_matrices", "doubled_convolution"):
        original = getattr(contraction, name)

        def watched(*args, name=name, original=original):
            result = original(*args)
            if result is not None:
                calls.append(name)
            return result

        monkeypatch.setattr(contraction, name, watched)
    return calls


ORDERS = {
    "matrix": "_by_matrices",
    "mixing": "_by_matrices",
    "doubling": "doubled_convolution",
    "library": "rounded",  # which every convolution begins with, and here nothing else follows
}
BILINEAR = {"scale_factor": 2, "mode": "bilinear"}
CASES = [  # convolution, its options, the interpolation before it, channels, size, the order
    (F.conv2d, {"padding": 1}, None, 4, (2, 2), "matrix"),
    (F.conv2d, {"padding": 1}, None, 4, (1, 1), "matrix"),
    (F.conv2d, {"padding": 2, "stride": 2, "dilation": 2}, None, 4, (2, 2), "matrix"),
    (F.conv2d, {"padding": "same"}, None, 4, (1, 3), "matrix"),
    (F.conv2d, {"padding": 1}, None, 4, (3, 3), "library"),
    (F.conv3d, {"padding": 1}, None, 2, (2, 2, 2), "matrix"),
    (F.conv1d, {"padding": 1}, None, 3, (1,), "matrix"),
    (F.conv2d, {"padding": 1}, BILINEAR, 4, (1, 1), "matrix"),
    (F.conv2d, {"padding": 1}, BILINEAR, 40, (2, 2), "mixing"),
    (F.conv2d, {"padding": 1}, BILINEAR, 40, (2, 3), "mixing"),
    (F.conv2d, {"padding": 1}, BILINEAR, 24, (4, 4), "library"),
    (F.conv2d, {"padding": 1}, BILINEAR, 40, (16, 14), "doubling"),
    (F.conv2d, {"padding": "same"}, {"scale_factor": (2, 2), "mode": "bilinear"}, 40, (9, 25), "doubling"),
    (F.conv2d, {"padding": 1, "dilation": 2}, BILINEAR, 40, (16, 14), "library"),
    (F.conv2d, {"padding": 1, "stride": 2}, BILINEAR, 40, (16, 14), "library"),
    (F.conv2d, {"padding": (1, 0)}, BILINEAR, 40, (16, 14), "library"),
    (F.conv2d, {"padding": 1}, BILINEAR | {"align_corners": True}, 40, (16, 14), "library"),
    (F.conv2d, {"padding": 1}, BILINEAR | {"scale_factor": (2, 3)}, 40, (16, 14), "library"),
    (F.conv2d, {"padding": 1}, {"scale_factor": 2, "mode": "nearest"}, 40, (16, 14), "library"),
    (F.conv2d, {"padding": 1}, {"size": (32, 28), "mode": "bilinear"}, 40, (16, 14), "library"),
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
    calls = orders(monkeypatch)
    f = function(1, channels, *size, dtype=dtype)
    weight = rand(6, channels, *[3] * len(size), dtype=dtype)
    b = rand(6, dtype=dtype) if bias else None

    def operation(x):
        return conv(x if resize is None else F.interpolate(x, **resize), weight, b, **options)

    result = operation(f)
    if order == "doubling" and dtype == torch.float64:
        order = "library"  # which is faster there
    assert calls[-1] == ORDERS[order] and ("_matrix" in calls) == (order == "matrix")
    expected = torch.stack([operation(value) for value in f.values])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(result.values, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def test_few_points_are_not_worth_a_matrix(monkeypatch):
    calls = orders(monkeypatch)
    F.conv2d(function(1, 4, 2, 2, points=30), rand(6, 4, 3, 3), padding=1)
    assert calls == ["rounded"]


@pytest.mark.parametrize("points", [1, 7, 17, 100, 121, 700])
def test_only_small_images_are_rounded(points):
    images = rand(points, 3, 2, 2, dtype=torch.float32)
    result = contraction.rounded(images)
    assert points <= len(result) <= 1.125 * points and torch.equal(result[:points], images)
    assert len({len(contraction.rounded(images[:n])) for n in range(1, points + 1)}) <= 16 + 8 * 6
    large = torch.empty(17, 1, contraction.FEW // 16, 1)
    assert contraction.rounded(large) is large and contraction.rounded(large.double()[:, :, :2]).shape[0] == 17


def test_a_convolution_without_a_batch_after_an_enlargement_or_a_concatenation():
    """Their first axis of one is then the channel, and what torch enlarges or concatenates is the height."""
    weight = rand(6, 1, 3, 3)

    def enlarged(x):
        return F.conv2d(F.interpolate(x[0], scale_factor=2, mode="nearest"), weight, padding=1)

    def concatenated(x):
        return F.conv2d(torch.cat([x[0], 2 * x[0].flip(1)], 1), weight, padding=1)

    x, direction, t = rand(1, 4, 5), rand(1, 4, 5), torch.linspace(-1, 1, 50, dtype=torch.float64)
    for operation in (enlarged, concatenated):
        f = restrict(
            lambda x, operation=operation: operation(F.relu(x)), x, direction, (-1.0, 1.0), dtype=torch.float64
        )
        direct = torch.stack([operation(F.relu(x + s * direction)[None]) for s in t])
        torch.testing.assert_close(f(t), direct, rtol=1e-12, atol=1e-12)


def test_doubling_of_any_size():
    """Borders and corners of the smallest images, and layouts."""
    for height, width in [(1, 1), (1, 4), (2, 1), (2, 2), (3, 5)]:
        images, weight = rand(4, 3, height, width), rand(5, 3, 3, 3)
        images = images.contiguous(memory_format=torch.channels_last)
        expected = F.conv2d(F.interpolate(images, scale_factor=2, mode="bilinear"), weight, padding=1)
        torch.testing.assert_close(contraction.doubled_convolution(images, weight), expected, rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("size", [4, 40])
def test_a_network_in_all_orders(monkeypatch, size, dtype):
    calls = orders(monkeypatch)
    torch.manual_seed(1)
    net, x, direction = Small().eval().double(), rand(1, size, size), rand(1, size, size)
    window = (-3.0, 3.0) if size == 4 else (-0.01, 0.02)
    f = restrict(net, x, direction, window, dtype=dtype)
    assert f.pieces > 60
    assert calls.count("rounded") > calls.count("_by_matrices") + calls.count("doubled_convolution")
    assert ("_matrix" in calls and "_by_matrices" in calls) == (size == 4)
    assert ("doubled_convolution" in calls) == (size == 40 and dtype == torch.float32)
    t = torch.linspace(*window, 101, dtype=torch.float64)
    direct = torch.stack([net((x + s * direction)[None])[0] for s in t]).detach()
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(f(t).double(), direct, rtol=tolerance, atol=tolerance * float(direct.abs().max()))


def test_in_inference_mode():
    torch.manual_seed(1)
    net, x, direction = Small().eval(), rand(1, 4, 4), rand(1, 4, 4)
    expected = restrict(net, x, direction, (-3.0, 3.0), dtype=torch.float64)
    with torch.inference_mode():
        f = restrict(net, x, direction, (-3.0, 3.0), dtype=torch.float64)
    torch.testing.assert_close(f.values, expected.values, rtol=0, atol=0)


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
