"""Concatenations and constants before a convolution: the same function, whether or not they wait for it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sigad.errors import UnsupportedOperationError
from sigad.line import LineFunction, restrict
from sigad.line.fast import deferred as deferring
from sigad.line.fast.deferred import Deferred

G = torch.Generator().manual_seed(3)


def rand(*shape):
    return torch.randn(*shape, generator=G, dtype=torch.float64)


def function(*shape, pieces=5):
    inner = torch.rand(pieces - 1, generator=G, dtype=torch.float64).sort().values * 2 - 1
    ends = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    return LineFunction(torch.cat([ends[:1], inner, ends[1:]]), rand(pieces + 1, *shape))


def same(operation, *functions):
    """The operation on the functions equals the operation at single points; returns its result."""
    result = operation(*[f.derive(f.values) for f in functions])
    t = torch.rand(40, generator=G, dtype=torch.float64) * 2 - 1
    for got, *at_point in zip(result(t), *[f(t) for f in functions], strict=True):
        torch.testing.assert_close(got, operation(*at_point), rtol=1e-11, atol=1e-12)
    return result


CONVOLUTIONS = [
    (F.conv1d, (9,), {}),
    (F.conv2d, (6, 5), {"padding": 1}),
    (F.conv2d, (6, 5), {"padding": "same", "dilation": 2}),
    (F.conv2d, (7, 6), {"stride": 2, "padding": (1, 0)}),
    (F.conv2d, (6, 5), {"groups": 5}),
    (F.conv3d, (4, 3, 5), {"padding": 1}),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shifted", ["before", "after", "never", "by a map"])
@pytest.mark.parametrize(("conv", "size", "options"), CONVOLUTIONS, ids=lambda value: getattr(value, "__name__", None))
def test_convolution_of_concatenations_and_constants(conv, size, options, shifted, bias):
    f, g = function(1, 2, *size), function(1, 3, *size, pieces=3)
    weight = rand(10, 5 // options.get("groups", 1), *[3] * len(size))
    b = rand(10) if bias else None
    shift = rand(1, 5, *size) if shifted == "by a map" else rand(5, *[1] * len(size))

    def operation(x, y):
        joined = torch.cat([x, y], 1)
        joined = joined if shifted == "never" else joined + shift if shifted != "before" else shift + joined
        return F.relu(conv(joined, weight, b, **options))

    same(operation, f, g)


def test_batch_norm_takes_the_constant():
    f, weight, shift = function(1, 4, 6, 6), rand(8, 4, 3, 3), rand(1, 4, 1, 1)
    norm = nn.BatchNorm2d(8).double().eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    seen = []

    def operation(x):
        y = F.conv2d(x + shift, weight, padding=1)
        seen.append(y)
        return norm(y) + y.sum()  # asked for twice: once waiting, once not

    same(operation, f)
    assert isinstance(seen[0], Deferred)


def test_operations_in_place_do_not_change_what_waits():
    f, g, weight = function(1, 2, 4, 4), function(1, 3, 4, 4), rand(7, 5, 3, 3)

    def operation(x, y):
        x, y = x * 1.0, y * 1.0
        joined = torch.cat([x, y], 1)
        x += 5.0  # a copy has been joined
        joined += rand(1).item() * 0 + 2.0
        return F.conv2d(F.relu_(joined), weight) + x.mean()

    same(operation, f, g)


def test_a_network_is_the_same_whether_or_not_anything_waits(monkeypatch):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
            self.time = nn.Parameter(torch.randn(1, 8, 1, 1))
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x):
            skip = F.relu(self.first(x))
            up = F.interpolate(F.relu(F.avg_pool2d(skip, 2) - 0.1), scale_factor=2, mode="bilinear")
            return F.relu(self.norm(self.last(torch.cat([up, skip], 1) + self.time)))

    torch.manual_seed(0)
    net, x, direction = Net().eval().double(), rand(1, 8, 8), rand(1, 8, 8)
    waited = []
    monkeypatch.setattr("sigad.line.rules_affine.worth_waiting", lambda *args: waited.append(args) or False)
    never = restrict(net, x, direction, (-2.0, 2.0), dtype=torch.float64)
    assert waited
    monkeypatch.setattr("sigad.line.rules_affine.worth_waiting", lambda f, weight: f.waiting)
    always = restrict(net, x, direction, (-2.0, 2.0), dtype=torch.float64)
    monkeypatch.setattr("sigad.line.rules_affine.worth_waiting", deferring.worth_waiting)
    sometimes = restrict(net, x, direction, (-2.0, 2.0), dtype=torch.float64)
    t = torch.linspace(-2, 2, 301, dtype=torch.float64)
    direct = torch.stack([net((x + s * direction)[None])[0] for s in t]).detach()
    for f in (never, always, sometimes):
        torch.testing.assert_close(f(t), direct, rtol=1e-10, atol=1e-12)
    assert abs(always.pieces - never.pieces) <= 2  # kinks that rounding puts on one side or the other


def test_questions_about_the_shape_compute_nothing():
    f = Deferred([function(1, 2, 4, 4), function(1, 3, 4, 4)], rand(5, 1, 1))
    assert (f.dim(), f.ndim, f.shape, f.size(1), f.numel()) == (4, 4, (1, 5, 4, 4), 5, 80)
    assert f.dtype == torch.float64 and f.is_floating_point() and torch.zeros_like(f).shape == f.shape
    assert f.waiting and f.values.shape == (10, 1, 5, 4, 4) and not f.waiting


def test_a_waiting_function_refuses_the_methods_of_tensors_that_have_no_rule():
    f = function(1, 3, 4, 4)
    for waiting in (F.interpolate(f, scale_factor=2), torch.cat([f, f], 1)):
        assert isinstance(waiting, Deferred) and waiting.waiting
        with pytest.raises(UnsupportedOperationError, match="resize"):
            waiting.resize(2, 6)
