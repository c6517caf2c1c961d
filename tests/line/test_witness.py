"""Modules that are no function of their input, and what comes from the caller or from other threads."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.errors import InvalidInputError, NumericalError, UnsupportedOperationError
from sigad.line import Restriction, restrict
from sigad.line.precision import full_precision

X, DIRECTION = torch.tensor([0.3, -0.4, 0.7]).double(), torch.tensor([1.0, 0.5, -0.25]).double()
BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])


def on_the_line(module, dtype=torch.float64, window=(-2.0, 2.0)):
    return restrict(module, X, DIRECTION, window, dtype=dtype)


@BOTH
@pytest.mark.parametrize("asks", [lambda x: isinstance(x, Tensor), torch.is_tensor])
def test_a_module_that_asks_for_a_tensor_gets_one(asks, dtype):
    def module(x):
        return F.relu(x) if asks(x) else x

    t = torch.linspace(-2, 2, 41, dtype=torch.float64)
    expected = F.relu(X + t[:, None] * DIRECTION)
    torch.testing.assert_close(on_the_line(module, dtype)(t).double(), expected, rtol=1e-6, atol=1e-6)


@BOTH
@pytest.mark.parametrize("asks", [lambda x: type(x) is Tensor, lambda x: x.__class__ == Tensor])
@pytest.mark.parametrize("other", [F.relu, lambda x: 1.01 * x, lambda x: x[:, :2], lambda x: (x, x)])
def test_a_module_that_asks_for_the_exact_type_is_refused(asks, other, dtype):
    with pytest.raises(UnsupportedOperationError, match="exact type"):
        on_the_line(lambda x: other(x) if asks(x) else x, dtype)


class Counting(nn.Module):
    def __init__(self, used: bool):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.used = used

    def forward(self, x):
        self.calls += 1
        return x * self.calls if self.used else x


class Remembering(nn.Module):
    """The exponential mean of what it has seen; by an attribute that is no buffer."""

    mean = 0.0

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1
        return x + self.mean


class Decaying(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x):
        self.layer.weight.data.mul_(0.99)
        return self.layer(x)


GENERATOR = torch.Generator().manual_seed(0)
NO_FUNCTIONS = {
    "torch": lambda: lambda x: x + torch.randn(1, 3),
    "torch, unused": lambda: lambda x: (torch.rand(3), x)[1],
    "dropout of a constant": lambda: lambda x: x + F.dropout(torch.ones(3)),
    "in place": lambda: lambda x: x + torch.empty(3).uniform_(),
    "own generator": lambda: lambda x: x + torch.rand(1, 3, generator=GENERATOR),
    "python": lambda: lambda x: x * random.random(),
    "numpy": lambda: lambda x: x + np.random.default_rng().normal(),
    "numpy's global": lambda: lambda x: x + torch.from_numpy(np.random.rand(1, 3)),  # noqa: NPY002
    "a buffer that counts": lambda: Counting(True),
    "a buffer that counts in vain": lambda: Counting(False),
    "an attribute": Remembering,
    "weights": Decaying,
}


@BOTH
@pytest.mark.parametrize("name", NO_FUNCTIONS)
def test_what_is_no_function_of_its_input_is_refused(name, dtype):
    with pytest.raises(UnsupportedOperationError, match=r"random numbers|two answers|changes its buffer|not the same"):
        on_the_line(NO_FUNCTIONS[name](), dtype)


def test_what_draws_the_same_numbers_each_time_is_a_function():
    def module(x):
        return F.rrelu(x) + torch.rand(1, 3, generator=torch.Generator().manual_seed(3)).double()

    assert on_the_line(module).shape == (3,)


def test_a_module_that_caches_is_a_function():
    class Caching(nn.Module):
        positions = None

        def forward(self, x):
            if self.positions is None:
                self.positions = torch.arange(x.shape[-1], dtype=x.dtype)
                self.register_buffer("cached", self.positions)
            return x + self.positions

    assert on_the_line(Caching()).shape == (3,)


def test_weights_changed_between_two_calls_of_one_layer():
    """By way of .data, which torch does not count."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.before = nn.Conv2d(4, 4, 1).double()
            self.conv = nn.Conv2d(4, 4, 3, padding=1).double()

        def forward(self, x):
            first = self.conv(F.avg_pool2d(F.relu(self.before(x)), 2))  # one pixel: kernel and padding become a matrix
            self.conv.weight.data.mul_(2.0)
            second = self.conv(F.relu(first))
            self.conv.weight.data.mul_(0.5)
            return F.relu(second)

    torch.manual_seed(1)
    net, x, direction = Twice(), torch.randn(4, 2, 2).double(), 40 * torch.randn(4, 2, 2).double()
    f = restrict(net, x, direction, (-3.0, 3.0), dtype=torch.float64)
    for t in (-2.0, -0.3, 0.77):
        torch.testing.assert_close(f(t), net((x + t * direction)[None])[0].detach(), rtol=1e-10, atol=1e-10)


@BOTH
@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.numpy()], ids=["tensor", "array"])
def test_the_callers_numbers_stay_as_they_are(kind, dtype):
    constant, x, direction = torch.full((1, 3), 2.0, dtype=dtype), X.to(dtype).clone(), DIRECTION.to(dtype).clone()
    before = [v.clone() for v in (x, direction, constant)]
    given = [kind(v) for v in (x, direction, constant)]

    def module(x, c):
        x.clamp_(-0.1, 0.1)
        c.mul_(3.0)
        return F.relu_(x) + c

    line = Restriction(module, (given[0], given[2]), (given[1], None), dtype=dtype)
    first = line(-2.0, 2.0)
    for value, old in zip((x, direction, constant), before, strict=True):
        assert torch.equal(value, old)
    for value in (x, direction, constant):  # nor does it matter what becomes of them
        value.zero_()
    assert torch.equal(line(-2.0, 2.0).values, first.values)
    assert float(first(0.0).min()) >= 6.0


USES = {
    "before a convolution": lambda x, c: F.conv2d(x + c, torch.ones(2, 3, 2, 2).double()),
    "waiting": lambda x, c: x + c,
    "in a concatenation": lambda x, c: torch.cat([x + c, x], 1),
    "copied": lambda x, c: x.copy_(c) + 0.0,
    "copied to a blank": lambda x, c: torch.zeros_like(x).copy_(c) * 2.0,
    "filled in": lambda x, c: x.fill_(c[0, 0, 0]),
    "added in place": lambda x, c: x.add_(c),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_constant_changed_after_its_use_leaves_the_result_alone(use):
    """Whether the result has been computed or waits; whether the constant is a tensor or made in the likeness of x."""

    def module(x):
        results = []
        for make in (torch.ones(3, 1, 1).double, lambda: torch.ones_like(x)[0, :, :1, :1]):
            c = make()
            y = use(x.clone(), c)
            c.mul_(3.0)
            results.append(F.relu(y))
        return tuple(results)

    x, direction = torch.linspace(-1, 1, 48).double().reshape(2, 3, 4, 2)
    f = restrict(module, x, direction, (-2.0, 2.0), dtype=torch.float64)
    for got, expected in zip(f, module((x + 0.3 * direction)[None]), strict=True):
        torch.testing.assert_close(got(0.3), expected[0])


def test_outputs_are_not_the_buffers_of_the_module():
    net = nn.Module()
    net.register_buffer("offset", torch.ones(1, 3).double())
    net.forward = lambda x: (x, net.offset)
    _, offset = on_the_line(net)
    net.offset.zero_()
    assert (offset.values == 1).all()


@pytest.mark.parametrize(
    "module",
    [
        lambda x: x / 0.0,
        lambda x: x * 1e30 * 1e30,
        lambda x: x * float("nan"),
        lambda x: F.relu(x + float("inf")) * 0.0,
        lambda x: (x, torch.tensor([torch.nan])),
    ],
)
def test_numbers_that_are_not_finite_are_refused(module):  # fmt: skip
    with pytest.raises(NumericalError, match="finite"):
        on_the_line(module, torch.float32)


def test_where_single_precision_is_not_enough():
    def module(x):
        return (x + 1e7) - 1e7

    with pytest.raises(NumericalError, match="float64"):
        on_the_line(module, torch.float32)
    torch.testing.assert_close(on_the_line(module)(0.5), X + 0.5 * DIRECTION, rtol=1e-7, atol=1e-7)


def test_another_thread_may_draw_random_numbers():
    """A module is not blamed for the generator that others use."""
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            torch.rand(10)
            random.random()
            np.random.rand(3)  # noqa: NPY002

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        line = Restriction(nn.ReLU(), X, DIRECTION)
        for _ in range(50):
            assert line(-2.0, 2.0).shape == (3,)
    finally:
        stop.set()
        thread.join()


def test_threads_get_what_they_would_get_alone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2))
    images = torch.randn(6, 2, 2, 4, 4)
    alone = [restrict(net, x, d, (-2.0, 2.0), memory_budget=2**20) for x, d in images]
    results: list = [None] * len(images)

    def run(i):
        for _ in range(3):
            results[i] = restrict(net, *images[i], (-2.0, 2.0), memory_budget=2**20)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    t = torch.linspace(-2, 2, 101, dtype=torch.float64)
    for f, g in zip(results, alone, strict=True):
        torch.testing.assert_close(f(t), g(t), rtol=1e-5, atol=1e-5)


def test_the_last_thread_puts_the_precision_back():
    kind, device = torch.backends.mkldnn.conv, torch.device("cpu")
    before = kind.fp32_precision
    entered, leave = threading.Event(), threading.Event()

    def other():
        with full_precision(device):
            entered.set()
            leave.wait(10)

    try:
        kind.fp32_precision = "bf16"
        thread = threading.Thread(target=other)
        with full_precision(device):
            thread.start()
            assert entered.wait(10)
        assert kind.fp32_precision == "ieee"  # the other one still computes
        leave.set()
        thread.join()
        assert kind.fp32_precision == "bf16"
    finally:
        leave.set()
        kind.fp32_precision = before


def test_arrays_are_inputs_as_tensors_are():
    expected = on_the_line(nn.ReLU())
    for x, direction in (
        (X.numpy(), DIRECTION.numpy()),
        (X.numpy()[::-1].copy()[::-1], DIRECTION),  # backwards in memory
        ([X.numpy()], [DIRECTION]),
    ):
        f = restrict(nn.ReLU(), x, direction, (-2.0, 2.0), dtype=torch.float64)
        assert torch.equal(f.values, expected.values)
    f = restrict(nn.ReLU(), np.array([1, 2]), np.array([1, -1]), (-4.0, 4.0), dtype=torch.float64)  # integers
    torch.testing.assert_close(f(-3.0), torch.tensor([0.0, 5.0]).double())


@pytest.mark.parametrize(
    "x", [[0.1, 0.2], 0.1, "x", X.to(torch.complex128), np.ma.masked_array([0.1, 0.2], [0, 1]), None]
)
def test_other_inputs_are_refused(x):
    with pytest.raises(InvalidInputError):
        restrict(nn.ReLU(), x, x, (-1.0, 1.0))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_scripted_and_traced_modules_are_refused_with_the_way_out():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).double()
    scripted = torch.jit.script(net)
    hidden = nn.Sequential(nn.Identity(), torch.jit.trace(net, X[None]))
    function = torch.jit.script(_relu)
    for module, name in ((scripted, "scripted from"), (hidden, "'1'.*scripted from"), (function, "scripted from"),
                         (lambda x: function(x), "scripted from")):  # fmt: skip
        with pytest.raises(UnsupportedOperationError, match=name):
            on_the_line(module)


def _relu(x: Tensor) -> Tensor:
    return torch.relu(x)
