"""A module along a line against the module itself, at many points."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sigad.errors import NumericalError, UnsupportedOperationError
from sigad.line import Restriction, above, concatenate, restrict
from tests.fuzz import AGREES

POINTS = 40


def values(module: Callable, x: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """All numbers that the module returns, at each point alone: (points, numbers)."""
    with torch.no_grad():
        rows = [tree_leaves(module((x + s * direction)[None])) for s in t]
    return torch.stack([torch.cat([leaf.reshape(-1).double() for leaf in row]) for row in rows])


def numbers(result, t: Tensor) -> Tensor:
    """The same of the restricted module."""
    return torch.cat([leaf(t).reshape(len(t), -1).double() for leaf in tree_leaves(result)], 1)


def hold(module: Callable, x: Tensor, direction: Tensor, window: tuple[float, float], generator) -> str:
    """Hold the restriction of a module, a function of its input, against the module: agrees, or why it was refused.

    Between two breakpoints the restriction is a line; so the module is asked at random points of the window, at points
    within random pieces, and next to breakpoints on either side: a kink that is missing shows in the piece that it is
    in.
    """
    try:
        exact = restrict(module, x, direction, window, dtype=torch.float64)
    except UnsupportedOperationError as error:
        if error.operation is None:  # the module is a function of its input: the engine's own witness found a mistake
            raise
        return f"refused {error.operation}: {str(error).split(': ', 1)[1].split(';')[0]}"
    low, high = window
    points = torch.unique(torch.cat([leaf.breakpoints for leaf in tree_leaves(exact)]))
    some = torch.randint(len(points) - 1, (POINTS,), generator=generator)
    share = torch.tensor([1e-6, 0.31, 1 - 1e-6], dtype=torch.float64)[torch.arange(POINTS) % 3]
    anywhere = low + (high - low) * torch.rand(POINTS, generator=generator, dtype=torch.float64)
    t = torch.cat([points[some] + share * (points[some + 1] - points[some]), anywhere, points[[0, -1]]]).clamp(
        low, high
    )
    direct = values(module, x, direction, t)
    got = numbers(exact, t)
    scale = (
        max(float(direct.abs().max()), float(x.abs().max()), float(direction.abs().max())) if direct.numel() else 1.0
    )
    assert got.shape == direct.shape
    assert float((got - direct).abs().max()) <= 1e-9 * scale, "double precision differs"
    single = restricted_in_single_precision(module, x, direction, window)
    if single is not None:
        error = float((numbers(single, t) - direct).abs().max())
        assert error <= 2e-3 * scale, f"single precision differs by {error}"
    leaves = tree_leaves(exact)
    if len(points) < 3000:
        parts = list(Restriction(module, x, direction, dtype=torch.float64, memory_budget=2**22).chunks(window))
        assert float((numbers(concatenate(parts), t) - got).abs().max()) <= 1e-9 * scale, "chunks differ"
    level = float(direct[0].median())
    for leaf in leaves:
        own = leaf(t).reshape(len(t), -1)
        output, intervals = above(leaf, level)
        for i in range(own.shape[1]):
            start, stop = intervals[output == i].T[:, :, None]
            inside = ((start <= t.numpy()) & (t.numpy() <= stop)).any(0)
            clear = ((own[:, i] - level).abs() > 1e-9 * scale).numpy()
            assert ((own[:, i] > level).numpy() == inside)[clear].all(), "a level set differs"
    return AGREES


def restricted_in_single_precision(module: Callable, x: Tensor, direction: Tensor, window: tuple[float, float]):
    try:
        values(module, x.float(), direction.float(), torch.zeros(1))
    except RuntimeError:  # it has constants in double precision, which torch does not take with single precision
        return None
    try:
        return restrict(module, x.float(), direction.float(), window)
    except NumericalError:
        return None
