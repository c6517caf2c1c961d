"""Piecewise-linear operations: they add the breakpoints they need, then act on the values.

To add one: if it acts on each number alone, say at which numbers it bends (KINKS); if it takes a maximum over several,
use `bend_at_envelope`. Then add a sample call to tests/line/test_rules.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sigad.line import grid
from sigad.line.activations import piecewise_linear
from sigad.line.function import Jumping, LineFunction, align, named, pointwise, rule, unsupported
from sigad.line.inplace import outermost
from sigad.line.rules_affine import only_first, over_batch

KINKS = {  # names: (arguments after the tensor) -> the numbers at which the operation bends
    "relu prelu leaky_relu abs absolute": lambda *args, **kwargs: (0.0,),
    "relu6": lambda: (0.0, 6.0),
    "hardtanh": lambda min_val=-1.0, max_val=1.0: (min_val, max_val),
    "hardsigmoid": lambda: (-3.0, 3.0),
    "softshrink": lambda lambd=0.5: (-lambd, lambd),
}


def refine(f: LineFunction, positions: Tensor) -> LineFunction:
    """The same function with further breakpoints."""
    if len(f.windows) > 1:  # segments between windows are not real: what was found there is not either
        positions = positions[grid.inside(f.windows, positions)]
    return f.at(grid.merge(f.breakpoints, positions))


def bend_at(f: LineFunction, levels) -> LineFunction:
    """Add breakpoints where a number of f passes one of the levels."""
    rows = grid.as_rows(f.values)
    return refine(f, torch.cat([grid.crossings(f.breakpoints, rows, level)[2] for level in levels]))


def bend_at_envelope(f: LineFunction, best: Tensor, candidates) -> LineFunction:
    """Add breakpoints where a maximum over several numbers of f bends.

    best (K, P) tells which number is the largest, for each of P maxima. Where it is the same at both ends of a segment,
    it is the largest all along, as the others lie below it at both ends. Only for the other segments
    `candidates(row, p)` is asked for the n numbers (m, n) of m maxima at m breakpoints, -inf for none.
    """
    segment, p = torch.nonzero(best[1:] != best[:-1], as_tuple=True)
    if not len(segment):
        return f
    problem, fraction = grid.envelope_kinks(candidates(segment, p), candidates(segment + 1, p))
    return refine(f, grid.between(f.breakpoints, segment[problem], fraction))


def _register_elementwise(names: str, kinks) -> None:
    @rule(*named(names))
    @outermost
    def elementwise(func, args, kwargs):
        f, rest = only_first(func, args, kwargs)
        bent = bend_at(f, kinks(*rest, **kwargs))
        if func.__name__ == "relu" and bent is not f:
            bent.values.relu_()  # nobody else holds these values yet: one pass less over the largest tensors
            return bent
        if func.__name__ == "prelu":  # has a weight for each channel, whose axis vmap finds
            return pointwise(func, (bent, *rest), kwargs)
        return bent.derive(func(bent.values, *rest, **kwargs))


for _names, _kinks in KINKS.items():
    _register_elementwise(_names, _kinks)


@rule(*named("rrelu"))
@outermost
def rrelu(func, args, kwargs):
    given = dict(zip(("input", "lower", "upper", "training"), args, strict=False)) | kwargs
    if given.get("training", False):
        raise unsupported(func, "in training mode it is random; call module.eval() first")
    return F.leaky_relu(given["input"], (given.get("lower", 1 / 8) + given.get("upper", 1 / 3)) / 2)


@rule(*named("threshold"))
@outermost
def threshold(func, args, kwargs):
    given = dict(zip(("input", "threshold", "value"), args, strict=False)) | kwargs
    if given["threshold"] != given["value"]:
        raise unsupported(func, "it jumps, unless its value equals its threshold")
    return given["input"].clamp(min=given["value"])


BOUNDS: dict[str, Callable] = {"min": torch.maximum, "max": torch.minimum}
"""What the arguments of clamp do."""


@rule(*named("clamp clip clamp_min clamp_max"))
@outermost
def clamp(func, args, kwargs):
    names = ("input", "max", "min") if func.__name__ == "clamp_max" else ("input", "min", "max")
    given = dict(zip(names, args, strict=False)) | kwargs
    result = given["input"]
    for side, further in BOUNDS.items():
        bound = given.get(side)
        if isinstance(bound, (Tensor, LineFunction)):
            result = further(result, bound)
        elif bound is not None:
            result = pointwise(torch.clamp, (bend_at(result, (bound,)),), {side: bound})
    return result


@rule(*named("maximum minimum fmax fmin"))
@outermost
def extremum(func, args, kwargs):
    pair = (*args, *kwargs.values())
    both = align([x for x in pair if isinstance(x, LineFunction)])
    points = bend_at(pointwise(torch.sub, pair, {}), (0.0,)).breakpoints
    moved = iter([x.at(points) for x in both])
    return pointwise(func, tuple(next(moved) if isinstance(x, LineFunction) else x for x in pair), {})


@rule(torch.max, torch.min, torch.Tensor.max, torch.Tensor.min)
@outermost
def max_or_min(func, args, kwargs):
    largest = func.__name__ == "max"
    f, *rest = *args, *(kwargs.pop(name) for name in ("input", "other") if name in kwargs)
    if not rest and not kwargs:
        return (torch.amax if largest else torch.amin)(f)
    if rest and isinstance(rest[0], Tensor):
        return (torch.maximum if largest else torch.minimum)(f, rest[0])
    given = dict(zip(("dim", "keepdim"), rest, strict=False)) | kwargs
    values = (torch.amax if largest else torch.amin)(f, **given)
    kind = torch.return_types.max if largest else torch.return_types.min
    return kind((values, Jumping(func, values.shape, f.device)))


@rule(*named("aminmax"))
@outermost
def aminmax(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    given = {name: value for name, value in kwargs.items() if value is not None}
    return torch.return_types.aminmax((torch.amin(f, *rest, **given), torch.amax(f, *rest, **given)))


@rule(*named("amax amin"))
@outermost
def reduce(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    given = dict(zip(("dim", "keepdim"), rest, strict=False)) | kwargs
    dims = given.get("dim", ())
    dims = {d % max(f.ndim, 1) for d in ((dims,) if isinstance(dims, int) else dims)} or set(range(f.ndim))
    if not f.ndim:
        return f.derive(f.values)
    kept = [d for d in range(f.ndim) if d not in dims]
    rows = f.values.permute(0, *(d + 1 for d in (*kept, *sorted(dims))))
    groups = rows.reshape(len(rows), -1, math.prod(f.shape[d] for d in dims))
    groups = groups if func.__name__ == "amax" else -groups
    bent = bend_at_envelope(f, groups.argmax(2), lambda row, p: groups[row, p])
    return pointwise(func, (bent, sorted(dims), given.get("keepdim", False)), {})


PAIRS = 2**22
"""Pairs of numbers that are compared at once."""


def sorted_values(f: LineFunction, dim: int, descending: bool) -> LineFunction:
    """The numbers of f along an axis in order: each linear between the places where two of them cross."""
    if not f.ndim:
        return f.derive(f.values)
    rows = f.values.movedim(dim + 1 if dim >= 0 else dim, -1)
    n = rows.shape[-1]
    rows = rows.reshape(len(rows), -1, n)
    order = torch.argsort(rows, dim=2, stable=True)
    found = []
    for some in torch.nonzero((order[1:] != order[:-1]).any(2)).split(max(PAIRS // max(n, 1) ** 2, 1)):
        segment, p = some.unbind(1)
        ends = rows[segment, p].double(), rows[segment + 1, p].double()
        start, stop = (end[:, :, None] - end[:, None] for end in ends)
        problem, i, j = torch.nonzero((start < 0) & (stop > 0), as_tuple=True)
        start, stop = start[problem, i, j], stop[problem, i, j]
        found.append(grid.between(f.breakpoints, segment[problem], start / (start - stop)))
    bent = refine(f, torch.cat(found)) if found else f
    return pointwise(lambda x: x.sort(dim, descending=descending)[0], (bent,), {})


def _ordered(func, f: LineFunction, values: LineFunction):
    kind = getattr(torch.return_types, func.__name__)
    return kind((values, Jumping(func, values.shape, f.device)))


@rule(*named("sort"))
@outermost
def sort(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    given = dict(zip(("dim", "descending"), rest, strict=False)) | kwargs
    given.pop("stable", None)
    return _ordered(func, f, sorted_values(f, given.get("dim", -1), given.get("descending", False)))


@rule(*named("msort"))
@outermost
def msort(func, args, kwargs):
    return sorted_values(args[0] if args else kwargs["input"], 0, False)


@rule(*named("topk"))
@outermost
def topk(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    given = dict(zip(("k", "dim", "largest", "sorted"), rest, strict=False)) | kwargs
    if not given.get("sorted", True):
        raise unsupported(func, "their order is not defined; leave out sorted=False")
    dim = given.get("dim", -1)
    values = sorted_values(f, dim, given.get("largest", True))
    return _ordered(func, f, pointwise(torch.narrow, (values, dim, 0, given["k"]), {}) if f.ndim else values)


@rule(*named("kthvalue median"))
@outermost
def kth_value(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    median = func.__name__ == "median"
    if median and not rest and not kwargs:
        f = pointwise(torch.flatten, (f,), {})
        return pointwise(torch.select, (sorted_values(f, 0, False), 0, (len(f) - 1) // 2), {})
    given = dict(zip(("dim", "keepdim") if median else ("k", "dim", "keepdim"), rest, strict=False)) | kwargs
    dim = given.get("dim", -1)
    at = (f.shape[dim] - 1) // 2 if median and f.ndim else given.get("k", 1) - 1
    values = sorted_values(f, dim, False)
    if f.ndim:
        values = pointwise(torch.narrow, (values, dim, at, 1), {})
        values = values if given.get("keepdim", False) else pointwise(torch.squeeze, (values, dim), {})
    return _ordered(func, f, values)


@rule(torch.norm, torch.Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm)
@outermost
def norm(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    order = "p" if func in (torch.norm, torch.Tensor.norm) else "ord"
    given = dict(zip((order, "dim", "keepdim"), rest, strict=False)) | kwargs
    dim, p = given.get("dim"), given.get(order)
    of_matrix = func is torch.linalg.norm and f.ndim > 1 and not isinstance(dim, int)
    if given.get("dtype") is not None or isinstance(p, str) or p not in (1, math.inf, -math.inf) or of_matrix:
        raise unsupported(func, "only the norms of vectors with p=1 and p=inf are piecewise linear")
    dims = tuple(range(f.ndim)) if dim is None or dim == () else dim
    size = f.abs()
    if not f.ndim:
        return size
    reduction = {1: torch.sum, math.inf: torch.amax, -math.inf: torch.amin}[p]
    return reduction(size, dim=dims, keepdim=given.get("keepdim", False))


@rule(F.l1_loss)
def l1_loss(func, args, kwargs):
    names = ("input", "target", "size_average", "reduce", "reduction", "weight")
    given = dict(zip(names, args, strict=False)) | kwargs
    if any(given.get(name) is not None for name in ("size_average", "reduce", "weight")):
        raise unsupported(func, "only with the argument reduction")
    error = (given["input"] - given["target"]).abs()
    reduction = given.get("reduction", "mean")
    return error if reduction == "none" else {"mean": torch.mean, "sum": torch.sum}[reduction](error)


def _register_pool(name: str, spatial: int) -> None:
    pool = getattr(F, name)

    @rule(*named(f"{name} {name}_with_indices", inplace=False))
    def max_pool(func, args, kwargs):
        f, rest = only_first(func, args, kwargs)
        indices = kwargs.pop("return_indices", False) or func.__name__.endswith("_with_indices")
        _, best = over_batch(pool, f, rest, kwargs | {"return_indices": True}, spatial)
        size, out = f.shape[-spatial:], best.shape[-spatial:]
        options = dict(zip(("kernel_size", "stride", "padding", "dilation"), rest, strict=False)) | kwargs
        windows = _windows(size, out, options if name.startswith("max") else None, f.device)
        planes = f.values.flatten(1, -spatial - 1)

        def candidates(row: Tensor, p: Tensor) -> Tensor:
            inside = windows[p % len(windows)]
            where, rest = [], inside.clamp_min(0)
            for n in reversed(size):  # torch.unravel_index would bring numbers from the host
                where, rest = [rest % n, *where], rest // n
            numbers = planes[(row[:, None], (p // len(windows))[:, None], *where)]
            return torch.where(inside >= 0, numbers, -torch.inf)

        bent = bend_at_envelope(f, best.flatten(1), candidates)
        result = f.derive(over_batch(pool, bent, rest, kwargs, spatial), bent.breakpoints)
        return (result, Jumping(func, result.shape, f.device)) if indices else result


for _n in (1, 2, 3):
    _register_pool(f"max_pool{_n}d", _n)
    _register_pool(f"adaptive_max_pool{_n}d", _n)


def _windows(size, out, options: dict | None, device) -> Tensor:
    """Positions in a plane of `size` that each place of `out` sees, (places, n), -1 for none. No options: adaptive."""
    flat = torch.zeros(1, 1, dtype=torch.int64, device=device)
    for axis, (n, m) in enumerate(zip(size, out, strict=True)):
        place = torch.arange(m, device=device)[:, None]
        if options is None:
            start, stop = place * n // m, -(-(place + 1) * n // m)
            seen = start + torch.arange(int(-(-n // m)) + 1, device=device)
            inside = seen < stop
        else:
            kernel = _option(options, "kernel_size", axis, None)
            start = place * _option(options, "stride", axis, kernel) - _option(options, "padding", axis, 0)
            seen = start + _option(options, "dilation", axis, 1) * torch.arange(kernel, device=device)
            inside = (seen >= 0) & (seen < n)
        grown = flat[:, None, :, None] * n + seen[None, :, None, :]
        valid = (flat >= 0)[:, None, :, None] & inside[None, :, None, :]
        flat = torch.where(valid, grown, -1).flatten(2).flatten(0, 1)
    return flat


def _option(options: dict, name: str, axis: int, default):
    value = options.get(name)
    value = default if value is None or value == [] else value
    return value if isinstance(value, int) else value[axis % len(value)]


@rule(piecewise_linear)
def interpolant(func, args, kwargs):
    f, (knots, *rest) = only_first(func, args, kwargs)
    knots = knots.to(f.dtype)
    return pointwise(func, (bend_at(f, knots.unbind()), knots, *rest), kwargs)
