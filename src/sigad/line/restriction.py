"""A torch module along a line, window by window within a memory budget."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from sigad.errors import InvalidInputError, NumericalError, SigadError, UnsupportedOperationError
from sigad.line import witness
from sigad.line.fast.memory import WindowTooLong, give_back, metered, resident
from sigad.line.function import Jumping, LineFunction
from sigad.line.precision import full_precision

MIN_POINTS = 40
"""Below this the fixed cost of the first layers, which see few points, and of the Python code rules."""

USUAL, MOST = 0.25, 0.42
"""Shares of the memory budget that the functions of one window take if all goes as expected, and at most. Freed tensors
leave gaps that the next, larger ones do not fit: the process takes two to three times as much."""


RESOLUTION = {torch.float32: 2.0**-24, torch.float64: 2.0**-40}
"""Windows shorter than this share of the largest |t| are not cut further: what only rounding keeps apart (kinks that
coincide in exact arithmetic) does not get less by cutting."""


class Restriction:
    """A piecewise-linear module restricted to the line x + t * direction, ready to be read on any window of t.

    Args:
        module: a torch.nn.Module, used unchanged (a copy is made only to change its dtype or device), or any function
            of tensors. It is run in the mode it is in; batch norm and dropout raise in training mode.
        x, direction: tensors or arrays of one shape, real, without a batch dimension; the module sees (1, *x.shape).
            They are copied. For several inputs, sequences of them, where a direction of None marks an input that does
            not move and is handed over as it is (a diffusion time, a mask), batch dimension included.
        dtype: of the activations, float32 or float64. Breakpoints are float64 always.
        device: of the computation; that of x if None.
        memory_budget: bytes that activations may take at once. Longer windows are cut into chunks.

    Source: Sotoudeh & Thakur, "Computing Linear Restrictions of Neural Networks", NeurIPS 2019.
    """

    def __init__(
        self,
        module: Callable,
        x: Tensor | Sequence,
        direction: Tensor | Sequence,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        memory_budget: int = 2**30,
    ):
        if dtype not in (torch.float32, torch.float64):
            raise InvalidInputError("dtype must be torch.float32 or torch.float64")
        inputs, directions = _sequence(x, "x"), _sequence(direction, "direction")
        if len(inputs) != len(directions) or all(d is None for d in directions):
            raise InvalidInputError("one direction per input, at least one of them not None")
        for i, (start, way) in enumerate(zip(inputs, directions, strict=True)):
            if way is None:
                continue
            inputs[i], directions[i] = start, way = _moving(start), _moving(way)
            if start.shape != way.shape or not torch.isfinite(start + way).all():
                raise InvalidInputError("x and direction must have one shape, and be finite")
        lead = next(start for start, way in zip(inputs, directions, strict=True) if way is not None)
        self.device = torch.device(device) if device is not None else lead.device
        self.dtype, self.memory_budget = dtype, memory_budget
        self.module = converted(module, dtype, self.device)
        # Line inputs in float64 whatever dtype: x + t * direction is rounded once.
        self.inputs = [
            (
                _placed(start, dtype if way is None else torch.float64, self.device, way is not None),
                _placed(way, torch.float64, self.device, True),
            )
            for start, way in zip(inputs, directions, strict=True)
        ]
        self._vouched = False  # the module has been seen to be a function of its input
        self._pieces_per_unit = 0.0  # learned from the windows seen so far, to choose the next one's length
        self._points = MIN_POINTS
        self._resident = resident()

    def __call__(self, low: float, high: float):
        """The output on the window [low, high], as one LineFunction (or the module's structure of them)."""
        return concatenate(list(self.chunks((low, high))))

    def chunks(self, *windows: tuple[float, float]) -> Iterator:
        """The output on the windows (low, high), from left to right, each cut as speed and the memory budget demand.

        Several short windows take hardly more time than one, as they go through the module together.

        Raises:
            InvalidInputError: for windows that are empty, not finite, or not sorted and disjoint.
            UnsupportedOperationError: by the first operation that is not piecewise linear, or if the module is no
                function of its input (it draws random numbers, counts its calls, asks for the type of a tensor).
            NumericalError: if the memory budget is too small, for a handful of points or for many kinks in one place;
                if the output is not finite, or single precision is not enough for the module.
        """
        left = [(float(low), float(high)) for low, high in windows]
        ends = [-math.inf, *itertools.chain(*left), math.inf]
        if any(not a < b for a, b in itertools.pairwise(ends)):
            raise InvalidInputError(f"the windows {left} are not finite, sorted and disjoint, or one is empty")
        reach = max(map(abs, itertools.chain(*left)), default=0.0)
        length = self._points / self._pieces_per_unit if self._pieces_per_unit else math.inf
        while left:
            now, later = _cut(left, length)
            # A first try, in the dark, should fail early if at all.
            share = 1 / 8 if math.isinf(length) else MOST
            covered = sum(high - low for low, high in now)
            try:
                results, pieces = self._run(now, int(share * self.memory_budget))
            except WindowTooLong as error:
                points, needed = error.args
                if share == MOST and (points <= 4 * len(now) or covered <= RESOLUTION[self.dtype] * reach):
                    raise NumericalError(
                        f"{points} points at t = {now[0][0]}, on a length of {covered:.1g}, need {needed} bytes; "
                        "raise memory_budget"
                    ) from None
                length = covered / 4
                continue
            yield from results
            density = pieces / covered  # its noise is the larger, the fewer the pieces: average it
            self._pieces_per_unit = (self._pieces_per_unit + density) / 2 if self._pieces_per_unit else density
            length = min(self._points / self._pieces_per_unit, 8 * covered)
            left = later

    def _run(self, windows: Sequence[tuple[float, float]], budget: int) -> tuple[list, int]:
        """The output on each of the windows in one go, and the number of pieces. Raises WindowTooLong."""
        ends = torch.tensor(windows, dtype=torch.float64, device=self.device)
        points = ends.flatten()
        with torch.no_grad(), full_precision(self.device), metered(budget) as meter:
            moving = [self._input(*line, points, ends) for line in self.inputs]
            sizes = [f.values.abs().max() for f in moving if isinstance(f, LineFunction) and f.shape.numel()]
            state = {} if self._vouched else witness.state_of(self.module)
            try:
                result = self.module(*moving)
            except RuntimeError as error:
                if isinstance(error, SigadError):
                    raise
                if "TorchScript" in str(error):  # which wraps the errors that end it
                    raise UnsupportedOperationError(_SCRIPTED) from error
                if self.dtype == torch.float32 and self._answers_in_double(ends):
                    # It holds constants in double precision, where torch wants all in one.
                    raise NumericalError(
                        f"the module works in double precision only ({error}); use dtype=torch.float64"
                    ) from error
                raise
            leaves, spec = tree_flatten(result)
            if any(isinstance(leaf, Jumping) for leaf in leaves):
                raise UnsupportedOperationError(
                    f"the module returns {next(f for f in leaves if isinstance(f, Jumping))}: they jump along the line"
                )
            if not any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves):
                raise InvalidInputError("the module returns no tensor of floating-point numbers")
            self._ask_witness(leaves, state, ends, max(map(float, sizes), default=0.0))
        template = next(f for f in (*leaves, *moving) if isinstance(f, LineFunction))
        out = [_output(leaf, template) for leaf in leaves]
        pieces = max(f.pieces for f in out if isinstance(f, LineFunction)) - (len(windows) - 1)
        if resident() - self._resident > self.memory_budget / 2:
            give_back()
        self._points = max(int(USUAL * self.memory_budget * pieces / max(meter.peak, 1)), MIN_POINTS)
        parts = [[_within(leaf, ends[i : i + 1]) for leaf in out] for i in range(len(windows))]
        return [tree_unflatten(part, spec) for part in parts], pieces

    def _ask_witness(self, leaves: list, state: dict, windows: Tensor, size: float) -> None:
        """Raise unless the module itself, at a point of the windows, says what its restriction `leaves` says."""
        point = witness.point_of(windows)
        before = witness.random_state(self.device)
        answer = self._answer(point)
        if not torch.equal(before, witness.random_state(self.device)):  # by this thread, or by another one?
            with witness.NoRandomNumbers():
                self._answer(point)
        if not self._vouched:
            witness.compare_states(state, self.module)
        witness.compare(
            leaves,
            answer,
            point,
            self.dtype,
            size,
            again=lambda: self._answer(point),
            exact=lambda: self._exact_answer(point),
        )
        self._vouched = True

    def _answer(self, point: Tensor) -> list[Tensor]:
        try:
            return witness.answer(self.module, self._inputs_at(point, self.dtype))
        except RuntimeError:
            if self.dtype == torch.float64:
                raise
            # It made a constant in double precision, which torch takes together with single precision here and there.
            return self._exact_answer(point)

    def _answers_in_double(self, windows: Tensor) -> bool:
        try:
            self._exact_answer(witness.point_of(windows))
        except RuntimeError:
            return False
        return True

    def _exact_answer(self, point: Tensor) -> list[Tensor]:
        exact = torch.float64
        return witness.answer(converted(self.module, exact, self.device), self._inputs_at(point, exact))

    def _inputs_at(self, point: Tensor, dtype: torch.dtype) -> list:
        """What the module sees at a point (1,), copied."""
        return [
            (start + point * way).to(dtype)[None] if way is not None else _placed(start, dtype, self.device, False)
            for start, way in self.inputs
        ]

    def _input(self, start: Tensor, way: Tensor | None, points: Tensor, windows: Tensor):
        if way is None:
            return _owned(start)  # the module may write into it
        values = (start + points.reshape(-1, *[1] * start.ndim) * way).to(self.dtype)
        return LineFunction.of(points, values[:, None], windows)


def _cut(windows: list[tuple[float, float]], length: float) -> tuple[list, list]:
    """The first windows of this length together, and the rest; all of them, rather than leave less than half of it."""
    if sum(high - low for low, high in windows) <= 1.5 * length:
        return windows, []
    for i, (low, high) in enumerate(windows):
        if high - low > length:
            stop = low + length
            begun = [(low, stop)] if low < stop else []
            return [*windows[:i], *begun], [(stop, high), *windows[i + 1 :]]
        length -= high - low
    return windows, []


def _within(leaf, window: Tensor):
    """The part of a function on one of its windows (1, 2); anything else as it is."""
    if not isinstance(leaf, LineFunction) or len(leaf.windows) == 1:
        return leaf
    first, last = torch.searchsorted(leaf.breakpoints, window[0]).cpu().tolist()
    part = leaf.derive(leaf.values[first : last + 1], leaf.breakpoints[first : last + 1])
    part.windows = window
    return part


_SCRIPTED = (
    "scripted code runs past Python, where its operations cannot be seen: pass the module that it was scripted from"
)


def _sequence(value, name: str) -> list:
    if isinstance(value, (Tensor, np.ndarray)):
        return [value]
    if isinstance(value, (list, tuple)):
        return list(value)
    raise InvalidInputError(f"{name} must be a tensor or an array, or a sequence of them, not {type(value).__name__}")


def _moving(value) -> Tensor:
    """An input that moves, or its direction, as a tensor; by reference."""
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError("x and direction must have no mask: fill the masked places of the array")
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
    if not isinstance(value, Tensor) or value.is_complex():
        raise InvalidInputError("each x that moves, and its direction, must be a tensor or an array of real numbers")
    return value


def _owned(value):
    return value.clone() if isinstance(value, Tensor) else value


def converted(module: Callable, dtype: torch.dtype, device: torch.device) -> Callable:
    """The module in the dtype, on the device and with the layout of weights that is fastest; itself if it is so.

    A copy takes tens of milliseconds: convert a module that many restrictions share beforehand.
    """
    if isinstance(module, torch.jit.ScriptFunction):
        raise UnsupportedOperationError(_SCRIPTED)
    if not isinstance(module, torch.nn.Module):
        return module
    scripted = [name for name, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted:
        raise UnsupportedOperationError(f"module {scripted[0] or type(module).__name__!r}: {_SCRIPTED}")
    layout = torch.channels_last if (dtype, device.type) == (torch.float32, "cpu") else torch.contiguous_format
    weights = [p for p in module.parameters() if p.ndim == 4]
    state = itertools.chain(module.parameters(), module.buffers())
    right_type = all(s.device == device and (s.dtype == dtype or not s.is_floating_point()) for s in state)
    if right_type and all(w.is_contiguous(memory_format=layout) for w in weights):
        return module
    module = copy.deepcopy(module).to(device=device, dtype=dtype)
    for weight in (p for p in module.parameters() if p.ndim == 4):
        weight.data = weight.data.contiguous(memory_format=layout)
    return module


def _placed(value, dtype: torch.dtype, device: torch.device, moves: bool):
    """A copy of an input in the dtype and on the device; of an input that does not move, integers stay integers."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value))
    if not isinstance(value, Tensor):
        return value
    return value.detach().to(device, dtype if moves or value.is_floating_point() else value.dtype, copy=True)


def _output(leaf, template: LineFunction):
    """Outputs without the batch dimension of one; constant ones as functions too."""
    if not isinstance(leaf, Tensor):
        return leaf
    if not isinstance(leaf, LineFunction) and leaf.is_floating_point():
        leaf = leaf.to(template.dtype).clone()  # of what may be a buffer of the module
        leaf = template.derive(leaf.expand(len(template.breakpoints), *leaf.shape))
    if isinstance(leaf, LineFunction) and leaf.ndim and leaf.shape[0] == 1:
        return leaf.derive(leaf.values[:, 0])
    return leaf


def concatenate(parts: Sequence):
    """Join functions on consecutive windows (or equal structures of them) into one function on all of it."""
    if len(parts) == 1:
        return parts[0]
    leaves, specs = zip(*(tree_flatten(part) for part in parts), strict=True)
    joined = [
        _joined(column) if isinstance(column[0], LineFunction) else column[0] for column in zip(*leaves, strict=True)
    ]
    return tree_unflatten(joined, specs[0])


def _joined(parts: Sequence[LineFunction]) -> LineFunction:
    if any(left.window[1] != right.window[0] for left, right in itertools.pairwise(parts)):
        raise InvalidInputError("only functions on consecutive windows can be joined")
    points = torch.cat([parts[0].breakpoints, *(f.breakpoints[1:] for f in parts[1:])])
    return LineFunction(points, torch.cat([parts[0].values, *(f.values[1:] for f in parts[1:])]))


def restrict(
    module: Callable,
    x: Tensor | Sequence,
    direction: Tensor | Sequence,
    window: tuple[float, float],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    memory_budget: int = 2**30,
):
    """The output of `module` along x + t * direction, for t in `window`, as a piecewise-linear function of t.

    The output (without its batch dimension of one) is exact up to the rounding of `dtype`: between two of its
    `breakpoints` it is linear. Modules that return several tensors give the same structure of functions. See
    :class:`Restriction` for the arguments and errors, and its `chunks` for a window too rich to hold at once.

    >>> f = restrict(network, image, direction, (-4.0, 4.0))
    >>> f(0.5)                      # the network's output at image + 0.5 * direction
    >>> f.breakpoints, f.slopes()   # and all its linear pieces
    """
    line = Restriction(module, x, direction, dtype=dtype, device=device, memory_budget=memory_budget)
    return line(*window)
