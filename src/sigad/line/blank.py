"""Constants made in the likeness of a function: `zeros_like(x)`, `x.new_empty(...)`.

Modules make them to write into. Until something that depends on the line is written, such a tensor is a constant like
any other; then it becomes a function, and with it all its views.
"""

import functools
import weakref

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from sigad.line.function import LineFunction, constant
from sigad.line.inplace import without_inplace


class Blank(LineFunction):
    """A constant tensor on the line. Its values are those of `tensor`, whose memory they share."""

    tensor: Tensor

    @classmethod
    def of_tensor(cls, tensor: Tensor, windows: Tensor, views: weakref.WeakSet | None = None) -> "Blank":
        ends = windows.flatten()
        self = cls.of(ends, tensor.expand(len(ends), *tensor.shape), windows)
        views = weakref.WeakSet() if views is None else views
        self.tensor, self.views = tensor, views
        views.add(self)
        return self

    def become_functions(self) -> None:
        """It, and what shares its memory, are functions from now on."""
        assert self.views is not None, "a blank is always among the views of its memory"
        for view in list(self.views):
            tensor = view.tensor
            view.place = functools.partial(_places, tensor)
            places = view.place().flatten()
            view.repeats = len(places.unique()) < len(places)
            view.values = view.values.clone()
            view.__class__ = LineFunction
            del view.tensor

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        target = args[0] if args else None
        writes = without_inplace(func) != func or kwargs.get("inplace") or func in WRITES
        if isinstance(target, Blank) and writes and any(_varies(a) for a in tree_flatten((args[1:], kwargs))[0]):
            target.become_functions()
        return _without_blanks(func, args, kwargs, writes=writes or kwargs.get("out") is not None)


WRITES = {torch.Tensor.__setitem__, torch.Tensor.copy_, torch.Tensor.index_put_}


def _varies(argument) -> bool:
    return isinstance(argument, LineFunction) and not isinstance(argument, Blank)


def _without_blanks(func, args: tuple, kwargs: dict, *, writes: bool):
    """The operation with constant tensors in place of blanks; what shares their memory is blank in turn."""
    blanks = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Blank)]

    def operand(a):
        if isinstance(a, LineFunction):
            return a.tensor if isinstance(a, Blank) else a
        # What is written to stays the tensor that it is; other constants are of the dtype of the functions, as ever.
        return a if writes else constant(a, blanks[0])

    args, kwargs = tree_map(operand, (tuple(args), kwargs))
    result = func(*args, **kwargs)

    def wrapped(leaf):
        if not isinstance(leaf, Tensor) or isinstance(leaf, LineFunction):
            return leaf
        for blank in blanks:
            if leaf is blank.tensor:
                return blank
            if torch._C._is_alias_of(leaf, blank.tensor):  # ty: ignore[missing-attribute] not in torch's stubs
                return Blank.of_tensor(leaf, blank.windows, blank.views)
        return leaf

    return tree_map(wrapped, result)


def _places(tensor: Tensor) -> Tensor:
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    return torch.arange(size, device=tensor.device).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
