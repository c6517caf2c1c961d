"""Operations in place, and all who see them.

A function keeps its values to itself: an operation in place gives it other ones. Where tensors would share memory (a
view and what it is a view of) the operation writes to all that are alive, through the places that their numbers have
in the tensor that all of them are views of. Whether some operations return a view depends on a layout in memory which
functions do not have; then an operation in place is refused.
"""

import functools
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from sigad.line.function import LineFunction, align, func_name, unsupported


def outermost(handler: Callable) -> Callable:
    """Give a rule its in-place form: `relu_(x)`, `x += y` and `relu(x, inplace=True)` make x another function."""

    @functools.wraps(handler)
    def run(func, args, kwargs):
        if kwargs.pop("out", None) is not None:
            raise unsupported(func, "writing to out= is not supported")
        base = without_inplace(func)
        in_place = kwargs.pop("inplace", False) or base != func
        if not in_place:
            return handler(base, args, kwargs)
        target = args[0] if args else kwargs["input"]
        writable(func, target)
        for source in (*args[1:], *kwargs.values()):
            readable(func, target, source, itself=func_name(base).strip("_") in NUMBER_BY_NUMBER)
        return overwrite(func, target, handler(base, args, kwargs))

    return run


NUMBER_BY_NUMBER = {
    *"add sub subtract mul multiply div divide true_divide truediv lerp addcmul addcdiv".split(),
    *"clamp clip clamp_min clamp_max".split(),
}
"""Operations that may read the tensor that they write, as they have read each number before they write it."""


@functools.cache
def without_inplace(func: Callable) -> Callable:
    """`Tensor.relu_` -> `Tensor.relu`, `Tensor.__iadd__` -> `Tensor.__add__`; others are returned as they are."""
    name = getattr(func, "__name__", "")
    if name.startswith("__i") and name != "__invert__" and hasattr(torch.Tensor, "__" + name[3:]):
        return getattr(torch.Tensor, "__" + name[3:])
    if name.endswith("_") and not name.endswith("__"):
        for space in (torch.Tensor, torch, torch.nn.functional):
            if hasattr(space, name[:-1]):
                return getattr(space, name[:-1])
    return func


def share(f: LineFunction, part: LineFunction, step: Callable[[Tensor], Tensor] | None, repeats: bool = False):
    """Note that `part` is a view of f: `step` makes it of f, and of any tensor in its place. None: it may be one.

    `repeats` says that several of its numbers lie in one place of the memory, as those of `expand` do. Returns it.
    """
    if f.views is None:
        f.views, f.place = weakref.WeakSet([f]), functools.partial(_whole, f.shape, f.device)
    part.views, part.repeats = f.views, repeats or f.repeats
    part.views.add(part)
    part.place = None if step is None or f.place is None else functools.partial(_then, f.place, step)
    return part


def _whole(shape: torch.Size, device: torch.device) -> Tensor:
    return torch.arange(shape.numel(), device=device).reshape(shape)


def _then(place: Callable[[], Tensor], step: Callable[[Tensor], Tensor]) -> Tensor:
    return step(place())


def overwrite(func: Callable, target, result: LineFunction) -> LineFunction:
    """What the operation `func` in place does: `target` is `result` from now on, for all who hold it or a view."""
    writable(func, target)
    if target.shape != result.shape:
        raise unsupported(func, "would write a function of the line into a tensor of another shape")
    if target.repeats:
        raise unsupported(
            func, "writes to a tensor that has several numbers in one place of the memory; clone it first"
        )
    others = [g for g in target.views or () if g is not target]
    if others:
        if target.place is None or any(g.place is None for g in others):
            raise unsupported(func, _UNKNOWN)
        places = target.place().flatten()
        size = max(int(g.place().max()) for g in (target, *others) if g.shape.numel()) + 1
        source = torch.full((size,), -1, device=places.device)
        source[places] = torch.arange(len(places), device=places.device)
        for g in others:
            _receive(g, source[g.place().flatten()], result)
    target.breakpoints, target.values = result.breakpoints, result.values.to(target.dtype)
    return target


def _receive(g: LineFunction, source: Tensor, result: LineFunction) -> None:
    """Write to each number of g the one of `result` that `source` (g.numel(),) names, or none if it is negative."""
    seen = source >= 0
    if not seen.any():
        return
    old, new = align([g, result])
    values = old.values.reshape(len(old.values), -1).clone()
    values[:, seen] = new.values.reshape(len(values), -1)[:, source[seen]].to(values.dtype)
    g.breakpoints, g.values = old.breakpoints, values.reshape(old.values.shape)


def readable(
    func: Callable, target, source, step: Callable[[Tensor], Tensor] = lambda place: place, itself: bool = True
) -> None:
    """Raise UnsupportedOperationError if `source` overlaps in memory the part of `target` that `step` makes, which is
    to be written: torch then reads some numbers before and others after that. `itself`: it may be this part."""
    if not isinstance(source, LineFunction) or source.views is None or source.views is not target.views:
        if source is not target or itself:
            return
        raise unsupported(func, _OVERLAP)
    if source.place is None or target.place is None:
        raise unsupported(func, _UNKNOWN)
    read, written = source.place(), step(target.place())
    if itself and read.shape == written.shape and torch.equal(read, written):
        return
    if torch.isin(read.flatten(), written.flatten()).any():
        raise unsupported(func, _OVERLAP)


_OVERLAP = "reads a tensor that overlaps in memory with the one that it writes to; clone it first"
_UNKNOWN = (
    "changes a tensor in place of which another one may be a view, or not, depending on its layout in memory; write it "
    "out of place"
)


def writable(func: Callable, target) -> None:
    """Raise UnsupportedOperationError unless `target` can hold a function of the line."""
    if not isinstance(target, LineFunction):
        raise unsupported(
            func,
            "would write a function of the line into a constant tensor; make that tensor by zeros_like(x), "
            "x.new_zeros(...) or the like, and it becomes a function when it is written to",
        )
