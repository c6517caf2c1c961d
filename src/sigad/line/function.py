"""A continuous piecewise-linear function of one real variable, which torch operations accept in place of a tensor."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sigad.errors import InvalidInputError, UnsupportedOperationError
from sigad.line import grid
from sigad.line.fast.memory import account, reserve

# What a torch function does to a line function: filled by rules_affine.py and rules_piecewise.py. An operation that
# is not here raises, always: to take an unknown operation for affine would make a p-value silently wrong.
RULES: dict[Callable, Callable] = {}

DTYPES = (torch.float32, torch.float64)

WAY_OUT = {
    "silu mish gelu softplus hardswish sigmoid tanh logsigmoid": (
        "replace the activation in the detector itself, by sigad.line.piecewise(module, activations=...), "
        "or compare what goes into it, if it comes last"
    ),
    "softmax log_softmax logsumexp": "compare its inputs (the logits) instead",
    "group_norm layer_norm instance_norm rms_norm normalize": "use batch normalisation in eval mode",
    "mul __mul__ __rmul__ matmul __matmul__ bmm mm pow __pow__ square": (
        "a product of two functions of the line is not linear; restrict each factor and combine the pieces"
    ),
    "item __bool__ __float__ __int__ tolist gt lt ge le eq ne __gt__ __lt__ __ge__ __le__ __eq__ __ne__": (
        "a decision along the line is a level set: restrict what comes before it, then use sigad.line.above"
    ),
    "numpy __array__ data cpu": "read .breakpoints and .values of the function instead",
    "argmax argmin argsort": "use the values of max, min or sort",
}


def _format(self: object, format_spec: str) -> str:
    return object.__format__(self, format_spec)


class LineFunction(Tensor):
    """A continuous piecewise-linear function on a window [a, b] of the real line, with tensors as values.

    It stands in for the tensor of one point: `shape`, `dim()` and every operation mean what they mean for the tensor at
    a single point t, so a module runs on it unchanged (torch hands operations over through `__torch_function__`).

    Args:
        breakpoints: (K,) float64, strictly increasing, K >= 2; the first and the last are the window.
        values: (K, *shape) float32 or float64, the value at each breakpoint; linear in between. Both are copied.

    Raises:
        InvalidInputError: for other shapes or dtypes, values that are not finite, or unsorted breakpoints.
        UnsupportedOperationError: by any operation on it that is not known to be exact.

    Source: Sotoudeh & Thakur, "Computing Linear Restrictions of Neural Networks", NeurIPS 2019.
    """

    # A subclass, because modules ask `isinstance(x, Tensor)` and go another way where it is not one. It has no memory
    # of its own: what comes to torch past Python (scripted and compiled code, a missing rule) ends in
    # `__torch_dispatch__`, and cannot take the stand-in for numbers. Only `type(x) is Tensor` can still tell the
    # difference; witness.py finds out.

    __array_ufunc__ = None  # numpy operands leave the operation to us
    __hash__, __format__, __dir__ = object.__hash__, _format, object.__dir__

    def __new__(cls, breakpoints: Tensor, values: Tensor):
        if breakpoints.ndim != 1 or breakpoints.dtype != torch.float64 or len(breakpoints) < 2:
            raise InvalidInputError("breakpoints must be a float64 vector of at least two")
        if values.dtype not in DTYPES or values.shape[:1] != breakpoints.shape:
            raise InvalidInputError("values must be float32 or float64, with one row per breakpoint")
        if not (torch.isfinite(breakpoints).all() and torch.isfinite(values).all()):
            raise InvalidInputError("breakpoints and values must be finite")
        if not (breakpoints[1:] > breakpoints[:-1]).all():
            raise InvalidInputError("breakpoints must increase strictly")
        breakpoints = breakpoints.detach().clone()
        return cls.of(breakpoints, values.detach().clone(), breakpoints[:: len(breakpoints) - 1].reshape(1, 2))

    @classmethod
    def of(cls, breakpoints: Tensor, values: Tensor, windows: Tensor) -> Self:
        """A function on sorted disjoint windows (m, 2), unchecked; the tensors are not copied, and not to be changed.

        What lies between two windows is never looked at.
        """
        self = cls.like(values.shape[1:], values.dtype, breakpoints.device)
        self.breakpoints, self.values, self.windows = breakpoints, values, windows
        self.views = None
        account(self)
        return self

    @classmethod
    def like(cls, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Self:
        """What torch takes for a tensor of this shape, without memory and without a function yet."""
        return Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)

    breakpoints: Tensor
    values: Tensor
    windows: Tensor
    views: weakref.WeakSet | None
    """All the functions that would or may share memory, were they tensors (see inplace.py); None: it alone."""
    place: Callable[[], Tensor] | None
    """Where among its `views` its numbers lie; None: unknown."""
    repeats: bool = False
    """Several of its numbers lie in one place."""

    def derive(self, values: Tensor, breakpoints: Tensor | None = None) -> "LineFunction":
        """A function on the same window with other values (K, *shape), at other breakpoints if given. Unchecked."""
        return LineFunction.of(self.breakpoints if breakpoints is None else breakpoints, values, self.windows)

    @property
    def shape(self) -> torch.Size:
        """Shape of the value at one point."""
        return self.values.shape[1:]  # ty: ignore[invalid-explicit-return] a slice of a Size is one, ty says a tuple

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.breakpoints.device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def window(self) -> tuple[float, float]:
        """Ends of the part of the line on which the function is known."""
        return float(self.breakpoints[0]), float(self.breakpoints[-1])

    @property
    def pieces(self) -> int:
        """Number of linear pieces, K - 1."""
        return len(self.breakpoints) - 1

    def __call__(self, t: float | Sequence[float] | Tensor) -> Tensor:
        """Values (*t.shape, *shape) at points t of the window. Raises InvalidInputError outside the window."""
        points = torch.as_tensor(t, dtype=torch.float64, device=self.breakpoints.device)
        low, high = self.window
        if points.numel() and not (low <= points.min() and points.max() <= high):
            raise InvalidInputError(f"the function is known on {self.window} only")
        return self.at(points.reshape(-1)).values.reshape((*points.shape, *self.shape))

    def at(self, points: Tensor) -> "LineFunction":
        """The function read at points (m,) of the window instead of its breakpoints. Itself at its own breakpoints."""
        if points is self.breakpoints:
            return self
        reserve(len(points), self.values[0].numel() * self.values.element_size())
        return self.derive(grid.interpolate(self.breakpoints, self.values, points), points)

    def slopes(self) -> Tensor:
        """Derivative (K - 1, *shape) on each piece."""
        width = (self.breakpoints[1:] - self.breakpoints[:-1]).reshape(-1, *[1] * len(self.shape))
        return ((self.values[1:].double() - self.values[:-1].double()) / width).to(self.values.dtype)

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"LineFunction(shape={tuple(self.shape)}, pieces={self.pieces}, window={self.window})"

    def __deepcopy__(self, memo: dict) -> "LineFunction":
        return memo.setdefault(id(self), self.derive(self.values.clone()))

    def __copy__(self) -> Tensor:
        return self.detach()  # as for tensors, which then share memory

    def __reduce_ex__(self, proto):
        return LineFunction.of, (self.breakpoints, self.values, self.windows)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        rule = RULES.get(func)
        if rule is None:
            raise unsupported(func)
        with torch.no_grad() if torch.is_grad_enabled() else contextlib.nullcontext():
            result = rule(func, args, dict(kwargs or {}))
        if isinstance(result, LineFunction) and result.dtype not in DTYPES:
            raise unsupported(func, f"its result is {result.dtype}, not float32 or float64; leave out torch.autocast")
        return result

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # ty: ignore[incompatible-method-override] torch's is no method
        raise unsupported(func, "comes from code that torch does not run in Python, scripted or compiled, for instance")


class Jumping(Tensor):
    """Indices that an operation returns beside its values, of a maximum or a sorted order: they jump along the line.

    A module may receive them and leave them alone. Everything else is refused.
    """

    source: str

    __hash__, __format__, __dir__ = object.__hash__, _format, object.__dir__

    def __new__(cls, source: Callable, shape: torch.Size, device: torch.device):
        self = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.int64, device=device)
        self.source = func_name(source)
        return self

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Jumping(the indices that '{self.source}' returns)"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise UnsupportedOperationError(
            f"torch operation '{func_name(func)}' on the indices that an operation returned for a tensor that depends "
            "on the line: they jump; use the values only"
        )

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # ty: ignore[incompatible-method-override] as above
        return cls.__torch_function__(func, types)


def _operator(name: str) -> Callable:
    original = getattr(Tensor, name)

    @functools.wraps(original)
    def method(self, other):
        return original(self, torch.as_tensor(other) if isinstance(other, np.ndarray) else other)

    return method


# torch leaves arrays to numpy, which would ask the function for its numbers.
for _kind in "add sub mul truediv matmul".split():
    for _prefix in ("", "r", "i"):
        if hasattr(Tensor, f"__{_prefix}{_kind}__"):
            setattr(LineFunction, f"__{_prefix}{_kind}__", _operator(f"__{_prefix}{_kind}__"))


def unsupported(func: Callable, why: str = "is neither affine nor piecewise linear, or has no rule") -> Exception:
    """The error for an operation that has no exact rule: it names the operation and the way out, where one is."""
    name = func_name(func)
    base = name.rstrip("_") if not name.startswith("__") else name
    hint = next((hint for names, hint in WAY_OUT.items() if base in names.split()), None)
    error = UnsupportedOperationError(
        f"torch operation '{name}' on a tensor that depends on the line: {why}" + (f"; {hint}" if hint else "")
    )
    error.operation = name
    return error


def func_name(func: Callable) -> str:
    """The name of a torch function; for the getter of a Tensor attribute, the name of the attribute."""
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name


def rule(*funcs: Callable):
    """Register a rule `(func, args, kwargs) -> result` for torch functions."""

    def register(handler: Callable) -> Callable:
        RULES.update(dict.fromkeys(funcs, handler))
        return handler

    return register


def named(names: str, inplace: bool = True) -> list[Callable]:
    """The torch functions, Tensor methods and operators that go by one of the names (and by `name_`, in place)."""
    found = []
    for name in names.split():
        for alias in (name, name + "_", f"__{name}__", f"__r{name}__", f"__i{name}__"):
            if not inplace and ((alias.endswith("_") and not alias.endswith("__")) or alias == f"__i{name}__"):
                continue
            for space in (torch, torch.Tensor, torch.nn.functional):
                if callable(getattr(space, alias, None)):
                    found.append(getattr(space, alias))
    return list(dict.fromkeys(found))


def align(functions: Sequence[LineFunction]) -> list[LineFunction]:
    """The same functions on the union of their breakpoints. Only the coarser ones are interpolated."""
    first, *rest = (f.windows for f in functions)
    if any(other is not first and not torch.equal(other, first) for other in rest):
        raise InvalidInputError("functions on different windows cannot be combined")
    points = common_breakpoints(functions)
    return [f.at(points) for f in functions]


def common_breakpoints(functions: Sequence[LineFunction]) -> Tensor:
    """The union of the breakpoints of several functions; the tensor of one of them if it holds them all."""
    points = max((f.breakpoints for f in functions), key=torch.numel)
    others = {id(f.breakpoints): f.breakpoints for f in functions if f.breakpoints is not points}
    return grid.merge(points, torch.cat(list(others.values()))) if others else points


def pointwise(func: Callable, args: tuple, kwargs: dict):
    """Apply a torch function to the tensors at each breakpoint, after bringing all line functions to one grid.

    Exact for whatever is affine jointly in all line functions among the arguments (and for piecewise-linear functions
    once the grid holds their kinks). `torch.vmap` runs the points as one batch and keeps axes right: the function sees
    tensors of a single point, so dimensions, broadcasting and -1 in shapes cannot touch the axis of points.
    """
    functions = []
    _collect(args, functions)
    _collect(kwargs.values(), functions)
    lead, *_ = functions = align(functions)
    if func in ELEMENTWISE and not kwargs and all(_reaches(a, lead) for a in args):
        source = iter(functions)
        direct = [next(source).values if isinstance(a, LineFunction) else constant(a, lead) for a in args]
        result = func(*direct)
    else:

        def at_one_point(*tensors):
            source = iter(tensors)
            filled = _fill(args, source, lead)
            return func(*filled, **{k: _fill(v, source, lead) for k, v in kwargs.items()})

        rows = [f.values for f in functions]
        try:
            result = torch.vmap(at_one_point)(*rows)
        except (RuntimeError, IndexError):  # vmap does not know the operation, or not for such shapes
            result = _stacked([at_one_point(*row) for row in zip(*rows, strict=True)])
    return _wrap(func, result, lead)


def _stacked(results: list):
    if isinstance(results[0], (list, tuple)):
        return type(results[0])([torch.stack(part) for part in zip(*results, strict=True)])
    return torch.stack(results)


ELEMENTWISE = {
    getattr(space, name)
    for names in ("add", "sub", "mul", "div", "true_divide")
    for name in (names, f"__{names}__", f"__r{names}__", "__truediv__")
    for space in (torch, torch.Tensor)
    if hasattr(space, name)
} - {torch.Tensor.__rdiv__}
"""Operations for which an operand of no more axes than the function broadcasts below the axis of points, so that they
need no vmap. They are frequent, and small ones should cost little."""


def _reaches(operand, lead: LineFunction) -> bool:
    if isinstance(operand, LineFunction):
        return operand.ndim == lead.ndim
    return isinstance(operand, (int, float)) or (isinstance(operand, Tensor) and operand.ndim <= lead.ndim)


def _collect(values, found: list[LineFunction]) -> None:
    """The line functions among arguments, in lists too, in order."""
    for value in values:
        if isinstance(value, LineFunction):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, found)


def _fill(value, source, lead: LineFunction):
    """The argument with its line functions replaced by the next tensors from `source`."""
    if isinstance(value, LineFunction):
        return next(source)
    if type(value) in (list, tuple):
        return type(value)(_fill(v, source, lead) for v in value)
    return constant(value, lead)


def _wrap(func: Callable, result, lead: LineFunction):
    if isinstance(result, (list, tuple)):
        return type(result)(_wrap(func, part, lead) for part in result)
    if result.dtype not in DTYPES:
        raise unsupported(func, "its result is not of dtype float32 or float64")
    return lead.derive(result)


def constant(value, lead: LineFunction):
    """A constant operand in the dtype of the function; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != lead.dtype:
        return value.to(lead.dtype)
    return value
