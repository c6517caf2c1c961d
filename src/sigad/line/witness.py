"""What the engine says of a module is held against what the module says itself, at single points of the line.

The rules are exact for a module whose output is a function of its input. Whether it is one cannot be read off its
operations: it may draw numbers (with torch's generator, its own, or Python's), count its calls, change its weights, or
go another way because `type(x)` is not torch's. So it is run on a plain tensor too, at a point of each window: all
of these then give another answer.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sigad.errors import NumericalError, UnsupportedOperationError
from sigad.line.function import LineFunction

ACCURACY = {torch.float32: (1e-3, 1e-5), torch.float64: (1e-8, 1e-12)}
"""Largest difference between function and module that can be rounding: relative to the largest outputs in the window,
and to the largest inputs, from which small outputs may be a difference."""

GOLDEN = (5**0.5 - 1) / 2


class NoRandomNumbers(TorchDispatchMode):
    """Within the block, drawing random numbers in this thread raises, but for an explicit generator."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None and _draws(func, args):
            raise UnsupportedOperationError(
                f"the module draws random numbers ('{func.__name__}'): draw them once, outside, and pass them in or "
                "keep them in buffers"
            )
        return func(*args, **kwargs)


def _draws(func, args: tuple) -> bool:
    """Whether an operation that may draw, does: rrelu does not where not in training, nor attention without dropout."""
    names = {"training", "train", "dropout_p"}
    values = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
    given = [values.get(a.name, a.default_value) for a in func._schema.arguments if a.name in names]
    return not given or any(given)


def random_state(device: torch.device) -> Tensor:
    """State of the generator that a module without one of its own draws from, as any other thread may."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def point_of(windows: Tensor) -> Tensor:
    """A point (1,) of the first of the longest windows (m, 2) that is no special one."""
    low, high = windows[(windows[:, 1] - windows[:, 0]).argmax()]
    return (low + GOLDEN * (high - low)).reshape(1)


def answer(module: Callable, inputs: list) -> list[Tensor]:
    """The tensors that the module returns for inputs (1, ...) of its own, copied."""
    return [leaf.detach().clone() for leaf in tree_leaves(module(*inputs)) if isinstance(leaf, Tensor)]


def state_of(module: Callable) -> dict[str, Tensor]:
    """A copy of the module's buffers."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()} if isinstance(module, nn.Module) else {}


def compare_states(before: dict[str, Tensor], module: Callable) -> None:
    """Raise UnsupportedOperationError if a buffer is not what it was. (New ones are welcome: some modules cache.)"""
    for name, now in state_of(module).items():
        old = before.get(name, now)
        if old.shape != now.shape or not torch.equal(old, now):
            raise UnsupportedOperationError(
                f"the module changes its buffer {name!r} when it is called: its output does not depend on its input "
                "alone"
            )


def compare(
    outputs: Sequence,
    answer: list[Tensor],
    point: Tensor,
    dtype: torch.dtype,
    inputs: float,
    again: Callable[[], list[Tensor]],
    exact: Callable[[], list[Tensor]],
) -> None:
    """Hold functions against the answer of the module at the same point.

    Args:
        outputs: leaves of the restricted output, with the batch axis of the module.
        answer: of the module.
        point: (1,) of the window.
        dtype: the precision of the restriction.
        inputs: the largest absolute value of the inputs in the window.
        again, exact: ask the module once more, and in double precision, to tell why they differ.

    Raises:
        UnsupportedOperationError: the module is no function of its input.
        NumericalError: it is, but single precision is not enough, or numbers are not finite.
    """
    leaves = [leaf for leaf in outputs if isinstance(leaf, Tensor)]
    if [own.shape for own in answer] != [leaf.shape for leaf in leaves]:
        raise UnsupportedOperationError(f"{_OTHER_WAY} its output then has another structure or other shapes")
    for i, (leaf, own) in enumerate(zip(leaves, answer, strict=True)):
        if not own.is_floating_point() or not own.numel():
            continue
        known = leaf.values if isinstance(leaf, LineFunction) else leaf[None]
        size = float(known.abs().max())
        if not math.isfinite(size):
            raise NumericalError(
                "the output of the module is not finite everywhere on the window (it overflows, or holds NaN); "
                "use dtype=torch.float64, or a shorter window"
            )
        value = leaf.at(point).values[0] if isinstance(leaf, LineFunction) else leaf
        relative, absolute = ACCURACY[dtype]
        limit = relative * size + absolute * inputs
        if _distance(value, own) <= limit:
            continue
        if _distance(own, again()[i]) > limit:
            raise UnsupportedOperationError(
                "the module gives two answers to one input: it draws random numbers, or depends on what it was called "
                "with before; draw them once, outside, and pass them in or keep them in buffers"
            )
        if dtype == torch.float32 and _distance(own, exact()[i]) > limit:
            raise NumericalError(
                "single precision is not enough for this module, whose output differs from that in double "
                f"precision by more than {limit:.1e}; use dtype=torch.float64"
            )
        raise UnsupportedOperationError(f"{_OTHER_WAY} its output differs by {_distance(value, own):.1e}")


_OTHER_WAY = (
    "the module does something else with a tensor that stands for the line than with a plain one (it may ask for its "
    "exact type), or is not the same at each call:"
)


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors; infinite if one holds NaN."""
    distance = float((a.double() - b.double()).abs().max())
    return math.inf if math.isnan(distance) else distance
