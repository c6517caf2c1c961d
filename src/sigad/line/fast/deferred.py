"""Concatenations, constants and interpolations that wait for the convolution behind them.

conv(cat(f, g) + c) = conv(f) + conv(g) + conv(c): the concatenated tensor, the largest of a U-Net, is never made, each
part is convolved at its own breakpoints, which are fewer, and the constant joins the scale and shift of the batch norm.
An image that is enlarged before the convolution may better be enlarged within it (`contraction.py`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor

from sigad.line.fast.batch import over_batch, scale_and_shift
from sigad.line.fast.contraction import convolution
from sigad.line.function import LineFunction, align, common_breakpoints, constant


class Deferred(LineFunction):
    """The concatenation of `parts` (1, C_i, *spatial) along the channels, plus a constant, computed when asked for.

    Args:
        parts: functions on one window.
        shift: a tensor that broadcasts to the shape, or None.
        resize: a linear map of images (N, C, *spatial), to be applied to the only part, without a shift; or None.
    """

    parts: Sequence[LineFunction]
    """Empty once the values are there."""
    shift: Tensor | None
    resampling: partial | None
    """The argument `resize`: tensors have a method of that name."""
    _shape: torch.Size
    _whole: LineFunction | None

    def __new__(cls, parts: Sequence[LineFunction], shift: Tensor | None = None, resize: partial | None = None):
        if len(parts) == 1 and resize is None and isinstance(parts[0], Deferred) and parts[0].concatenates:
            parts = parts[0].parts
        first = parts[0]
        spatial = first.shape[2:]
        if resize is not None:
            spatial = resize(torch.empty((1, 1, *spatial), device=first.device)).shape[2:]
        shape = torch.Size((1, sum(f.shape[1] for f in parts), *spatial))
        self = cls.like(shape, first.dtype, first.device)
        self.breakpoints, self.windows, self.views = common_breakpoints(parts), first.windows, None
        # Operations in place rebind the values of a function: hold on to those of now.
        self.parts, self._whole = [_as_of_now(f) for f in parts], None
        # Constants may be changed in place before they are asked for.
        self.shift, self.resampling = None if shift is None else constant(shift, first).clone(), resize
        self._shape = shape
        return self

    @property
    def waiting(self) -> bool:
        """Whether the values have not been asked for yet."""
        return self._whole is None

    @property
    def concatenates(self) -> bool:
        """Whether it waits, and is a concatenation and no more."""
        return self.waiting and self.shift is None and self.resampling is None

    @property
    def shape(self) -> torch.Size:
        return self._shape if self._whole is None else self._whole.shape

    @property
    def dtype(self) -> torch.dtype:
        return (self.parts[0] if self._whole is None else self._whole).dtype

    @property
    def values(self) -> Tensor:
        whole = self._whole
        if whole is None:
            if self.resampling is not None:
                values = over_batch(self.resampling, self.parts[0], (), {}, len(self._shape) - 2)
            else:
                # Without the batch axis of one: torch keeps the channels-last layout of rank 4, not that of rank 5.
                parts = [f.values[:, 0] for f in align(self.parts)]
                values = (torch.cat(parts, 1) if len(parts) > 1 else parts[0])[:, None]
            whole = self._become(values if self.shift is None else values + self.shift)
        return whole.values

    @values.setter
    def values(self, values: Tensor) -> None:
        self._become(values)

    def _become(self, values: Tensor) -> LineFunction:
        """Have these values, and let go of what they wait for."""
        self._whole = whole = self.derive(values)
        self.parts, self.shift, self.resampling = (), None, None
        return whole


def _as_of_now(f: LineFunction) -> LineFunction:
    if isinstance(f, Deferred) and f.waiting:
        return Deferred(f.parts, f.shift, f.resampling)
    return f.derive(f.values, f.breakpoints)


def _resizes(f: LineFunction) -> TypeGuard[Deferred]:
    return isinstance(f, Deferred) and f.waiting and f.resampling is not None


def per_channel(f: LineFunction, value) -> bool:
    """Whether a constant is one number for each channel of f, of shape (1, C, *spatial)."""
    spatial = [1] * (f.ndim - 2)
    shapes = ((1, *f.shape[1:2], *spatial), (*f.shape[1:2], *spatial))
    return bool(spatial) and f.shape[0] == 1 and isinstance(value, Tensor) and tuple(value.shape) in shapes


def worth_waiting(f: Deferred, weight: Tensor) -> bool:
    """Whether to convolve the parts one by one: it takes a pass over the weights, and saves some over the values."""
    large = len(f.breakpoints) * f.shape.numel() > weight.numel()
    batch = f.ndim == weight.ndim  # otherwise what was concatenated or enlarged are no channels and images of it
    return f.waiting and batch and large and (f.shift is None or per_channel(f, f.shift))


def convolve(conv: Callable, f: Deferred, weight: Tensor, bias: Tensor | None, options: dict) -> LineFunction:
    """The convolution (one group, zero padding) of a function that waits, whose constant is :func:`per_channel`."""
    weight, bias = constant(weight, f), constant(bias, f)
    parts = f.parts if f.resampling is None else [f]
    results = []
    for part, taps in zip(parts, weight.split([p.shape[1] for p in parts], 1), strict=True):
        own = None if results or f.shift is not None else bias
        source, resize = (part.parts[0], part.resampling) if _resizes(part) else (part, None)
        results.append(convolution(conv, source, taps, own, options, resize))
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
    if isinstance(f, Deferred) and f.waiting and f.resampling is None and len(f.parts) == 1:
        (f,), shift = f.parts, shift if f.shift is None else f.shift * scale + shift
    return f.derive(scale_and_shift(f, scale, shift))
