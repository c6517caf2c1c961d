"""Smooth activations replaced by piecewise-linear interpolants, in the detector itself."""

import copy
import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from sigad.errors import InvalidInputError

log = logging.getLogger(__name__)

TAILS = {"SiLU": (0.0, 1.0), "GELU": (0.0, 1.0), "Mish": (0.0, 1.0), "Softplus": (0.0, 1.0), "Hardswish": (0.0, 1.0)}
TAILS |= {"Sigmoid": (0.0, 0.0), "Tanh": (0.0, 0.0)}
"""Asymptotic slopes of the activations that can be replaced, by the name of their class in torch.nn."""


class PiecewiseLinear(nn.Module):
    """A continuous piecewise-linear activation: interpolation between knots, straight lines beyond them.

    Args:
        knots: (m,) strictly increasing positions.
        values: (m,) value at each knot.
        tails: slopes left of the first and right of the last knot.
        sup_error: largest distance from the function it replaces, over the real line (for information).
    """

    knots: Tensor
    values: Tensor
    tails: Tensor

    def __init__(self, knots: Tensor, values: Tensor, tails: tuple[float, float], sup_error: float = 0.0):
        super().__init__()
        self.register_buffer("knots", knots.clone())
        self.register_buffer("values", values.clone())
        self.register_buffer("tails", torch.tensor(tails).to(values))
        self.sup_error = sup_error

    def forward(self, x: Tensor) -> Tensor:
        # Slopes in the precision of x: rounded ones would not lead from one value to the next, and the function jump.
        knots, values, tails = (buffer.to(x.dtype) for buffer in (self.knots, self.values, self.tails))
        return piecewise_linear(x, knots, values, torch.cat([tails[:1], values.diff() / knots.diff(), tails[1:]]))

    def extra_repr(self) -> str:
        return f"knots={len(self.knots)}, sup_error={self.sup_error:.2e}"


def piecewise_linear(x: Tensor, knots: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
    """The function through (knots, values) (m,) with the `slopes` (m + 1,) left of, between and right of the knots."""
    if has_torch_function_unary(x):
        return handle_torch_function(piecewise_linear, (x,), x, knots, values, slopes)
    # Pieces are chosen, not summed: the same x gives the same result whatever its neighbours, without cancellation.
    piece = torch.bucketize(x.contiguous(), knots)
    anchor = (piece - 1).clamp_min(0)
    return values[anchor] + slopes[piece] * (x - knots[anchor])


def piecewise(module: nn.Module, activations: Iterable[str] = ("SiLU", "GELU"), knots: int = 8) -> nn.Module:
    """A copy of `module` whose smooth activations are replaced by piecewise-linear interpolants.

    Each has `knots` knots on [-8, 8], placed so that |f''|^(1/2) is equidistributed between them (which nearly
    minimises the largest error), and the asymptotic slopes of the activation beyond. The sup-norm error of each is its
    attribute `sup_error` and is logged. Use the copy as the detector *and* in the test: the test then stays exact.

    Modes are kept, an activation that stands in several places stays one, and one that is the module itself is replaced
    too, as are subclasses that do not have a `forward` of their own.

    Args:
        activations: names of classes in torch.nn; known are those in TAILS. Functional calls (F.silu) are not replaced.

    Raises:
        InvalidInputError: for an unknown name, fewer than 3 knots, or a module that has none of the activations.

    Source: Katsuoka et al., TMLR 2026, appendix C.
    """
    names = set(activations)
    if names - TAILS.keys() or knots < 3:
        raise InvalidInputError(f"activations must be among {sorted(TAILS)}, with at least 3 knots")
    like = next(module.parameters(), torch.empty(0))
    made: dict[int, PiecewiseLinear] = {}

    def replaced(part: nn.Module) -> nn.Module:
        name = _activation(part, names)
        if name is None:
            return part
        if id(part) not in made:
            made[id(part)] = _interpolant(part, TAILS[name], knots, like)
            log.info("%s: sup-norm error %.3e", name, made[id(part)].sup_error)
        return made[id(part)]

    result = copy.deepcopy(module)
    for parent in list(result.modules()):
        for name, child in list(parent._modules.items()):  # named_children() names each module once
            if child is not None:
                setattr(parent, name, replaced(child))
    result = replaced(result)
    if not made:
        raise InvalidInputError(f"the module has no activation module among {sorted(names)}")
    return result


def _activation(part: nn.Module, names: set[str]) -> str | None:
    """The name of the activation of torch.nn that a module is; None if it is none of these."""
    for name in names:
        kind = getattr(nn, name)
        if isinstance(part, kind) and type(part).forward is kind.forward:
            return name
    return None


def _interpolant(activation: nn.Module, tails: tuple[float, float], knots: int, like: Tensor) -> PiecewiseLinear:
    f = copy.copy(activation)
    vars(f)["inplace"] = False  # of those that have this option
    x = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    y = f(x)
    bend = torch.zeros_like(x)
    bend[1:-1] = (y[2:] - 2 * y[1:-1] + y[:-2]).abs().sqrt()
    mass = torch.cumsum(bend + 1e-9 * bend.max(), 0)  # strictly increasing where the activation is straight, too
    share = torch.linspace(0, 1, knots, dtype=torch.float64)
    at = torch.searchsorted((mass - mass[0]) / (mass[-1] - mass[0]), share).clamp(0, len(x) - 1)
    at[0], at[-1] = 0, len(x) - 1
    result = PiecewiseLinear(x[at], y[at], tails)
    wide = torch.linspace(-64, 64, 128001, dtype=torch.float64)
    result.sup_error = float((result(wide) - f(wide)).abs().max())
    return result.to(like.device, like.dtype).train(activation.training)
