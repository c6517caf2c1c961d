"""Piecewise-linear replacements of smooth activations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sigad.errors import InvalidInputError, UnsupportedOperationError
from sigad.line import PiecewiseLinear, piecewise, restrict


def network(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), activation, nn.Sequential(nn.Conv2d(4, 1, 3), activation))


@pytest.mark.parametrize(
    "activation", [nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Mish(), nn.Softplus(), nn.Hardswish(), nn.Tanh()]
)
def test_interpolants(activation):
    x = torch.linspace(-20, 20, 40001, dtype=torch.float64)
    errors = []
    for knots in (8, 16, 32):
        net = piecewise(nn.Sequential(activation).double(), {type(activation).__name__}, knots=knots)
        (replaced,) = net.modules().__iter__().__next__().children()
        assert isinstance(replaced, PiecewiseLinear) and len(replaced.knots) == knots
        assert replaced.knots[0] == -8 and replaced.knots[-1] == 8
        at_knots = replaced(replaced.knots)
        torch.testing.assert_close(at_knots, activation(replaced.knots))
        assert float((replaced(x) - activation(x)).abs().max()) <= replaced.sup_error * 1.0001
        errors.append(replaced.sup_error)
    assert errors[0] < 0.3 and errors[2] < errors[0]
    assert f"{errors[2]:.2e}" in repr(net)


def test_silu_with_eight_knots_is_close():
    (replaced,) = piecewise(nn.Sequential(nn.SiLU())).children()
    assert replaced.sup_error < 0.04
    assert replaced.knots.dtype == torch.float32


def test_network_with_replaced_activations_is_exact():
    net = network(nn.SiLU()).double()
    x, direction = torch.randn(1, 6, 6).double(), torch.randn(1, 6, 6).double()
    with pytest.raises(UnsupportedOperationError, match=r"silu.*sigad\.line\.piecewise"):
        restrict(net, x, direction, (-1.0, 1.0))
    copy = piecewise(net)
    f = restrict(copy, x, direction, (-1.0, 1.0), dtype=torch.float64)
    t = torch.linspace(-1, 1, 101, dtype=torch.float64)
    expected = torch.stack([copy((x + ti * direction)[None])[0] for ti in t]).detach()
    torch.testing.assert_close(f(t), expected, rtol=1e-10, atol=1e-12)
    assert isinstance(net[1], nn.SiLU)  # the original is as it was
    single = restrict(copy.float(), x, direction, (-1.0, 1.0))
    torch.testing.assert_close(single(t).double(), expected, rtol=1e-5, atol=1e-5)


def test_errors():
    with pytest.raises(InvalidInputError, match="no activation"):
        piecewise(nn.Sequential(nn.ReLU()))
    with pytest.raises(InvalidInputError, match="among"):
        piecewise(nn.Sequential(nn.SiLU()), {"Softmax"})

    class Functional(nn.Module):
        def forward(self, x):
            return F.silu(x)

    with pytest.raises(InvalidInputError, match="no activation"):
        piecewise(Functional())


class Own(nn.SiLU):
    """A subclass with another name, as libraries have them."""


class Scaled(nn.SiLU):
    def forward(self, x):
        return 2.0 * super().forward(x)


def test_every_place_of_an_activation_is_replaced():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.SiLU()
            self.own, self.scaled = Own(), Scaled()

        def forward(self, x):
            return self.own(self.second(self.first(x)))

    copy = piecewise(Parent())
    assert isinstance(copy.first, PiecewiseLinear) and copy.second is copy.first
    assert isinstance(copy.own, PiecewiseLinear) and isinstance(copy.scaled, Scaled)
    x = torch.linspace(-3, 3, 7)
    f = restrict(copy, x, torch.ones(7), (-1.0, 1.0))
    torch.testing.assert_close(f(0.3), copy(x + 0.3), rtol=1e-5, atol=1e-6)


def test_an_activation_alone():
    for activation in (nn.SiLU(), Own()):
        assert isinstance(piecewise(activation), PiecewiseLinear)


def test_modes_are_kept():
    net = nn.Sequential(nn.SiLU(), nn.Dropout(), nn.SiLU()).eval()
    net[1].train()
    assert [m.training for m in piecewise(net)] == [False, True, False]
    assert all(m.training for m in piecewise(net.train()).modules())


def test_an_interpolant_in_single_precision_does_not_jump_in_double_precision():
    (silu,) = piecewise(nn.Sequential(nn.SiLU()))
    assert silu.knots.dtype == torch.float32
    x, direction = torch.zeros(1).double(), torch.ones(1).double()
    f = restrict(silu, x, direction, (-9.0, 9.0), dtype=torch.float64)
    t = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    torch.testing.assert_close(f(t), silu(t)[:, None], rtol=0, atol=1e-14)
