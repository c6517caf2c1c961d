"""Random and real networks against direct evaluation, and a scan for kinks that the breakpoints miss."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.errors import UnsupportedOperationError
from sigad.line import LineFunction, Restriction, restrict
from sigad.models.vision import import_torchvision


def direct(module, x: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """The module at x + t * direction, one point at a time."""
    with torch.no_grad():
        return torch.stack([module((x + ti * direction)[None])[0] for ti in t])


def points_of(f: LineFunction, n: int, seed: int = 0) -> Tensor:
    low, high = f.window
    inside = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * inside


def bends(f: LineFunction) -> list[float]:
    """Breakpoints at which a slope really changes: where a window was cut into chunks, none does."""
    change = f.slopes().diff(dim=0).reshape(f.pieces - 1, f.shape.numel()).abs().amax(1)
    return f.breakpoints[1:-1][change > 1e-9].tolist()


def assert_equal(module, x, direction, f: LineFunction, rtol: float, n: int = 40) -> None:
    t = torch.cat([points_of(f, n), f.breakpoints[:: max(1, f.pieces // (n // 2))]])
    expected = direct(module.to(x.dtype), x, direction, t)
    scale = max(float(expected.abs().max()), 1e-300)
    assert float((f(t) - expected).abs().max()) <= rtol * scale


def kinks(module, x: Tensor, direction: Tensor, low: float, high: float, depth: int = 22) -> Tensor:
    """Brackets (m, 2) of the kinks, by bisection of a fine grid on which second differences do not vanish.

    The module is only evaluated, in float64 and on batches.
    """
    edges = torch.linspace(low, high, 200, dtype=torch.float64)
    brackets = torch.stack([edges[:-1], edges[1:]], 1)
    for level in range(depth + 1):
        if level:
            middle = brackets.mean(1)
            brackets = torch.stack([brackets[:, 0], middle, middle, brackets[:, 1]], 1).reshape(-1, 2)
        start, stop = brackets.T
        t = torch.stack([start, start + 0.31 * (stop - start), stop], 1)
        with torch.no_grad():
            y = module(x + t.reshape(-1, *[1] * x.ndim) * direction).reshape(*t.shape, -1)
        share = ((t[:, 1] - start) / (stop - start))[:, None]
        gap = (y[:, 1] - y[:, 0] - (y[:, 2] - y[:, 0]) * share).abs().amax(1)
        brackets = brackets[gap > 1e-11 * y.abs().amax((1, 2)).clamp_min(1)]
        if not len(brackets):
            break
    return brackets


def assert_all_among_breakpoints(brackets: Tensor, f: LineFunction) -> None:
    near = torch.searchsorted(f.breakpoints, brackets + torch.tensor([-1e-9, 1e-9], dtype=torch.float64))
    missed = brackets[near[:, 0] >= near[:, 1]]
    assert not len(missed), f"kinks that are not among the breakpoints: {missed.tolist()}"


class Net(nn.Module):
    """A random convolutional network; `plan` picks its layers."""

    def __init__(self, plan: list[int], width: int, skip: bool, inplace: bool, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.stem, self.skip = nn.Conv2d(2, width, 3, padding=1), skip
        kinds = [
            lambda: nn.ReLU(inplace=inplace),
            lambda: nn.LeakyReLU(0.1, inplace=inplace),
            lambda: nn.MaxPool2d(2, 1),
            lambda: nn.Sequential(nn.BatchNorm2d(width), nn.ReLU6(inplace=inplace)),
            lambda: nn.MaxPool2d(3, 2, 1),
            lambda: nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Hardtanh(-0.5, 0.5, inplace=inplace)),
            lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
            lambda: nn.PReLU(width),
        ]
        self.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), kinds[k]()) for k in plan)
        self.head = nn.Linear(width, 3)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.3)
                norm.running_var.uniform_(0.5, 2)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for layer in self.layers:
            y = layer(x)
            x = torch.maximum(y, x) + x if self.skip and y.shape == x.shape else y
        return self.head(x.mean((-1, -2)))


networks = st.builds(
    Net,
    plan=st.lists(st.integers(0, 7), min_size=0, max_size=3),
    width=st.sampled_from([2, 4]),
    skip=st.booleans(),
    inplace=st.booleans(),
    seed=st.integers(0, 2**31),
)


@settings(max_examples=25, deadline=None)
@given(net=networks, size=st.sampled_from([4, 6]), seed=st.integers(0, 2**31))
def test_random_networks_in_float64_and_float32(net, size, seed):
    torch.manual_seed(seed)
    x, direction = torch.randn(2, size, size).double(), torch.randn(2, size, size).double()
    f = restrict(net, x, direction, (-2.0, 2.0), dtype=torch.float64)
    assert f.shape == (3,) and (f.breakpoints.diff() > 0).all()
    assert_equal(net, x, direction, f, 1e-10)
    g = restrict(net, x, direction, (-2.0, 2.0), dtype=torch.float32)
    assert g.dtype == torch.float32 and g.breakpoints.dtype == torch.float64
    t = points_of(f, 30)
    expected = direct(net, x, direction, t)
    assert float((g(t) - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


@settings(max_examples=30, deadline=None)
@given(net=networks, seed=st.integers(0, 2**31))
def test_every_kink_of_a_scan_is_a_breakpoint(net, seed):
    torch.manual_seed(seed)
    x, direction = torch.randn(2, 4, 4).double(), torch.randn(2, 4, 4).double()
    f = restrict(net, x, direction, (0.0, 0.5), dtype=torch.float64)
    assert_all_among_breakpoints(kinks(net, x, direction, 0.0, 0.5), f)


def test_kinks_on_a_long_line():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.LeakyReLU(), nn.Linear(6, 2)).double()
    x, direction = torch.randn(3).double(), torch.randn(3).double()
    f = restrict(net, x, direction, (-5.0, 5.0), dtype=torch.float64)
    brackets = kinks(net, x, direction, -5.0, 5.0)
    assert len(brackets) >= 8
    assert_all_among_breakpoints(brackets, f)


def test_max_pool_with_ties_and_dead_regions():
    x = torch.zeros(1, 4, 4).double()  # every number of a window is equal at t = 0
    direction = torch.arange(16.0).double().reshape(1, 4, 4).remainder(3)
    f = restrict(nn.MaxPool2d(2), x, direction, (-1.0, 1.0), dtype=torch.float64)
    assert bends(f) == [0.0]
    f = restrict(nn.MaxPool2d(2), x, torch.ones_like(direction), (-1.0, 1.0), dtype=torch.float64)
    assert bends(f) == []  # all numbers move together: no kink

    class Dead(nn.Module):
        def forward(self, x):
            return F.max_pool2d(F.relu(x - 100.0), 2)

    f = restrict(Dead(), x, direction, (-1.0, 1.0), dtype=torch.float64)
    assert bends(f) == [] and (f.values == 0).all()


def test_max_of_many_lines_is_the_upper_envelope():
    slopes = torch.linspace(-3, 3, 41, dtype=torch.float64)
    f = restrict(lambda x: x.amax(1), -(slopes**2) / 2, slopes, (-2.0, 2.0), dtype=torch.float64)  # tangents of t^2 / 2
    expected = (slopes[1:] + slopes[:-1]) / 2
    inside = expected[expected.abs() < 2]
    torch.testing.assert_close(torch.tensor(bends(f), dtype=torch.float64), inside, rtol=0, atol=1e-13)
    assert f.shape == torch.Size([])


def test_exact_zeros_duplicated_roots_and_flat_pieces():
    net = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([[1.0], [1.0], [-1.0], [0.0]])
        net[0].bias[:] = torch.tensor([0.0, 0.0, 0.0, 0.0])
        net[2].weight.fill_(1.0)
        net[2].bias.zero_()
    x, direction = torch.zeros(1).double(), torch.ones(1).double()
    f = restrict(net, x, direction, (-1.0, 1.0), dtype=torch.float64)
    assert bends(f) == [0.0] and f.slopes()[[0, -1], 0].tolist() == [-1.0, 2.0]
    f = restrict(net, x, direction, (0.0, 1.0), dtype=torch.float64)  # the roots lie on the end of the window
    assert bends(f) == []
    f = restrict(nn.ReLU(), torch.zeros(3).double(), torch.zeros(3).double(), (-1.0, 1.0), dtype=torch.float64)
    assert bends(f) == [] and (f.values == 0).all()


def test_pieces_narrower_than_any_tolerance_survive():
    gap = 1e-13
    f = restrict(
        lambda x: F.relu(x) - F.relu(x - gap),
        torch.zeros(1).double(),
        torch.ones(1).double(),
        (-1.0, 1.0),
        dtype=torch.float64,
    )
    assert (f.breakpoints == 0.0).any() and ((f.breakpoints - gap).abs() < 1e-15).any()
    assert float(f(1.0)) == pytest.approx(gap, rel=1e-2)


class UNet(nn.Module):
    """Two levels, concatenated skips, a constant time embedding, average pooling and bilinear upsampling."""

    def __init__(self):
        super().__init__()
        self.time = nn.Linear(1, 4)
        self.down, self.middle, self.up = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 8, 3, padding=1),
            nn.Conv2d(12, 4, 3, padding=1),
        )
        self.norm, self.out = nn.BatchNorm2d(8), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        skip = F.relu(self.down(x) + self.time(t[:, None])[:, :, None, None])
        x = F.relu(self.norm(self.middle(F.avg_pool2d(skip, 2))))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out(F.relu(self.up(torch.cat([x, skip], dim=1))))


def test_unet_with_a_constant_time_and_noise():
    torch.manual_seed(0)
    net, noise = UNet().double().eval(), torch.randn(1, 1, 8, 8).double()
    x, direction, time = torch.randn(1, 8, 8).double(), torch.randn(1, 8, 8).double(), torch.tensor([3.0]).double()
    f = restrict(net, (x, time), (direction, None), (-2.0, 2.0), dtype=torch.float64)
    assert_equal(lambda_module(lambda y: net(y, time)), x, direction, f, 1e-10)
    f = restrict(lambda y: net(y + noise, time) - y, x, direction, (-2.0, 2.0), dtype=torch.float64)
    assert_equal(lambda_module(lambda y: net(y + noise, time) - y), x, direction, f, 1e-10)


def lambda_module(function) -> nn.Module:
    module = nn.Module()
    module.forward = function
    return module


def test_several_moving_inputs():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    a, b, da, db = torch.randn(4, 4).double()
    f = restrict(lambda u, v: net(torch.cat([u, v])), (a, b), (da, db), (-1.0, 1.0), dtype=torch.float64)
    assert f.shape == (2, 3)  # a batch of two moving instances
    t = points_of(f, 20)
    expected = net(torch.stack([torch.stack([a + ti * da, b + ti * db]) for ti in t]).reshape(-1, 4)).reshape(-1, 2, 3)
    torch.testing.assert_close(f(t), expected.detach(), rtol=1e-10, atol=1e-12)


MODELS = {
    "resnet18": 33,
    "resnet34": 32,
    "resnet50": 32,
    "vgg11": 32,
    "squeezenet1_1": 33,
    "densenet121": 32,
}


@pytest.mark.parametrize("name", MODELS)
def test_torchvision_unchanged(name):
    models = import_torchvision().models
    torch.manual_seed(1)
    net = getattr(models, name)().eval()
    size = MODELS[name]
    x, direction = torch.randn(3, size, size), torch.randn(3, size, size)
    f = restrict(net, x, direction, (0.0, 0.01))
    assert f.shape == (1000,) and f.pieces > 1
    assert_equal(net.double(), x.double(), direction.double(), f, 1e-5, n=4)
    assert net.training is False and next(net.parameters()).dtype == torch.float64
    with pytest.raises(UnsupportedOperationError, match="eval"):
        restrict(net.train(), x, direction, (0.0, 0.01))


def test_nothing_is_kept_from_one_image_to_the_next():
    torch.manual_seed(0)
    net = Net([0, 2], 4, True, True, 5)
    (x, y), direction = torch.randn(2, 2, 6, 6).double(), torch.randn(2, 6, 6).double()
    alone = restrict(net, y, direction, (-1.0, 1.0), dtype=torch.float64)
    restrict(net, x, direction, (-1.0, 1.0), dtype=torch.float64)
    again = restrict(net, y, direction, (-1.0, 1.0), dtype=torch.float64)
    assert torch.equal(alone.breakpoints, again.breakpoints) and torch.equal(alone.values, again.values)
    line = Restriction(net, y, direction, dtype=torch.float64)
    for low in (-1.0, 0.5, -0.25):  # windows in any order
        part = line(low, low + 0.5)
        t = points_of(part, 10)
        torch.testing.assert_close(part(t), alone(t), rtol=1e-10, atol=1e-12)


def test_dtype_modes_do_not_touch_the_callers_module():
    net = nn.Linear(3, 2)
    x, direction = torch.randn(3), torch.randn(3)
    f = restrict(net, x, direction, (-1.0, 1.0), dtype=torch.float64)
    assert f.dtype == torch.float64 and net.weight.dtype == torch.float32
    assert not f.values.requires_grad
    torch.testing.assert_close(f(0.3), net.double()((x + 0.3 * direction).double()).detach(), rtol=1e-7, atol=1e-7)


def test_no_host_transfers_inside_the_propagation():
    """No number is read back (`.item()`): the host only learns counts of breakpoints, as shapes."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    net = Net([0, 4, 3, 6], 4, True, True, 7)
    points = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    f = LineFunction(points, torch.randn(2, 1, 2, 8, 8).double())
    with Watch():
        net(f)
    assert seen and not [name for name in seen if "_local_scalar_dense" in name or "item" in name]
