"""Concatenations and constants that wait for the convolution behind them.

conv(cat(f, g) + c) = conv(f) + conv(g) + conv(c): the concatenated tensor, the largest of a U-Net, is never made, each
part is convolved at its own breakpoints, which are fewer, and the constant joins the scale and shift of the batch norm.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sigad.line.batch import over_batch, scale_and_shift
from sigad.line.function import LineFunction, align, common_breakpoints, constant


class Deferred(LineFunction):
    """The concatenation of `parts` (1, C_i, *spatial) along the channels, plus a constant, computed when asked for.

    Args:
        parts: functions on one window.
        shift: a tensor that broadcasts to the shape, or None.
    """

    FIELDS = LineFunction.FIELDS | {"parts", "shift", "_whole"}

    def __init__(self, parts: Sequence[LineFunction], shift: Tensor | None = None):
        if len(parts) == 1 and isinstance(parts[0], Deferred) and parts[0].waiting and parts[0].shift is None:
            parts = parts[0].parts
        # Operations in place rebind the values of a function: hold on to those of now.
        self.parts, self._whole = [f.derive(f.values, f.breakpoints) for f in parts], None
        self.shift = None if shift is None else constant(shift, parts[0])
        self.breakpoints, self.windows, self._views = common_breakpoints(parts), parts[0].windows, None

    @property
    def waiting(self) -> bool:
        """Whether the values have not been asked for yet."""
        return self._whole is None

    @property
    def shape(self) -> torch.Size:
        if not self.waiting:
            return self._whole.shape
        return torch.Size((1, sum(f.shape[1] for f in self.parts), *self.parts[0].shape[2:]))

    @property
    def dtype(self) -> torch.dtype:
        return (self.parts[0] if self.waiting else self._whole).dtype

    @property
    def values(self) -> Tensor:
        if self.waiting:
            # Without the batch axis of one: torch keeps the channels-last layout of rank 4, not that of rank 5.
            parts = [f.values[:, 0] for f in align(self.parts)]
            values = (torch.cat(parts, 1) if len(parts) > 1 else parts[0])[:, None]
            self.values = values if self.shift is None else values + self.shift
        return self._whole.values

    @values.setter
    def values(self, values: Tensor) -> None:
        self._whole, self.parts, self.shift = self.derive(values), None, None


def per_channel(f: LineFunction, value) -> bool:
    """Whether a constant is one number for each channel of f, of shape (1, C, *spatial)."""
    spatial = [1] * (f.ndim - 2)
    shapes = ((1, *f.shape[1:2], *spatial), (*f.shape[1:2], *spatial))
    return bool(spatial) and f.shape[0] == 1 and isinstance(value, Tensor) and tuple(value.shape) in shapes


def worth_waiting(f: Deferred, weight: Tensor) -> bool:
    """Whether to convolve the parts one by one: it takes a pass over the weights, and saves some over the values."""
    large = len(f.breakpoints) * f.shape.numel() > weight.numel()
    return f.waiting and large and (f.shift is None or per_channel(f, f.shift))


def convolve(conv: Callable, f: Deferred, weight: Tensor, bias: Tensor | None, options: dict) -> LineFunction:
    """The convolution (one group, zero padding) of a function that waits, whose constant is :func:`per_channel`."""
    weight, bias = constant(weight, f), constant(bias, f)
    results = []
    for part, taps in zip(f.parts, weight.split([p.shape[1] for p in f.parts], 1), strict=True):
        own = (taps, None if results or f.shift is not None else bias)
        results.append(part.derive(over_batch(conv, part, own, options, f.ndim - 2)))
    total, *others = align(results)
    for other in others:
        total.values.add_(other.values)  # nobody else holds these yet
    if f.shift is None:
        return total
    # As the constant is the same everywhere, its convolution is that of an image of ones, with a single channel.
    ones = torch.ones((1, 1, *f.shape[2:]), dtype=f.dtype, device=f.device)
    taps = torch.einsum("oi...,i->o...", weight, f.shift.flatten())[:, None]
    return Deferred([total], conv(ones, taps, bias, **options))


def normalize(f: LineFunction, scale: Tensor, shift: Tensor) -> LineFunction:
    """f * scale + shift, both (C,): what a batch norm in eval mode does."""
    axes = (-1, *[1] * (f.ndim - 2))
    scale, shift = (constant(c, f).reshape(axes) for c in (scale, shift))
    if isinstance(f, Deferred) and f.waiting and len(f.parts) == 1:
        (f,), shift = f.parts, shift if f.shift is None else f.shift * scale + shift
    return f.derive(scale_and_shift(f, scale, shift))
