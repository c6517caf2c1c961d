"""Convolutions of small images, summed in the order that costs least.

A convolution, of an image or of an interpolated one, is for each point of the line

    out[m, o] = sum over n, t, c of S[n, t, m] W[o, c, t] x[n, c]

with input pixels n, taps t, output pixels m, channels c and o, and S for what the padding, the stride and the
interpolation do. Usually S goes first: it is the interpolation, and the library's convolution never makes it. Where an
image has fewer pixels than the kernel has taps, most of these multiply nothing but padding, and S and W go first, to
one matrix. Before an image is enlarged, it has fewer pixels to mix the channels of: W and x go first.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sigad.line.batch import channels_last, over_batch
from sigad.line.function import LineFunction, constant
from sigad.line.memory import kept

WORTH = 0.5
"""Share of the multiplications of the library's convolution from which on another order is no longer taken: its
matrices are smaller, and the sums pass through memory once more."""


def convolution(
    conv: Callable, f: LineFunction, weight: Tensor, bias: Tensor | None, options: dict, resize: partial | None = None
) -> LineFunction:
    """A convolution (one group) of f (N, C, *spatial), or of `resize` of it, a linear map of each channel's image."""
    weight, bias = constant(weight, f), constant(bias, f)
    values = _reordered(conv, f, weight, options, resize) if len(f.shape) == weight.ndim else None
    if values is not None:
        return f.derive(values if bias is None else values.add_(bias.reshape(-1, *[1] * (weight.ndim - 2))))
    spatial = weight.ndim - 2
    if resize is not None:
        f = f.derive(over_batch(resize, f, (), {}, spatial))
    return f.derive(over_batch(conv, f, (weight, bias), options, spatial))


def _reordered(conv: Callable, f: LineFunction, weight: Tensor, options: dict, resize: partial | None) -> Tensor | None:
    """Values of the convolution in one of the other orders, or None if the library's is the cheapest."""
    size, taps = f.shape[2:], weight.shape[2:].numel()
    pixels, (outputs, channels) = size.numel(), weight.shape[:2]
    images = f.values.flatten(0, 1)
    matrix_share = pixels / taps * (1 + taps / len(images))  # S and W first, once for all points
    if min(matrix_share, pixels / channels if resize else 1.0) >= WORTH:
        return None
    key = (conv, size, str(options), resize and (resize.func, str(resize.keywords)))
    spread = kept(("S", *key, weight.shape[2:]), weight, lambda: _spread(conv, size, weight, options, resize))
    mixing_share = pixels / spread[0, 0].numel() + pixels / channels  # W and x first, then S
    if min(matrix_share, mixing_share) >= WORTH:
        return None
    space, spread = spread.shape[2:], spread.flatten(2)
    rows = images.flatten(2).transpose(1, 2)  # (P, n, c), a view in channels-last layout
    if matrix_share <= mixing_share:
        matrix = kept(("SW", *key), weight, lambda: _packed(_matrix(spread, weight)))
        result = _product(rows.flatten(1), matrix)
    else:
        mixing = kept("W", weight, lambda: _packed(weight.flatten(2).permute(2, 0, 1).flatten(0, 1)))
        mixed = _product(rows.reshape(-1, channels), mixing).view(len(images), pixels * taps, outputs)
        result = torch.bmm(spread.flatten(0, 1).T.expand(len(images), -1, -1), mixed)
    result = result.view(len(images), -1, outputs).transpose(1, 2).unflatten(2, space)
    single = result.dtype == torch.float32 and result.device.type == "cpu" and len(space) == 2
    return (channels_last(result) if single else result.contiguous()).unflatten(0, f.values.shape[:2])


def _spread(conv: Callable, size: torch.Size, weight: Tensor, options: dict, resize: partial | None) -> Tensor:
    """S (pixels, taps, *out): the convolution of the images of one pixel with the kernels of one tap."""
    like = {"dtype": weight.dtype, "device": weight.device}
    images = torch.eye(size.numel(), **like).reshape(-1, 1, *size)
    kernels = torch.eye(weight.shape[2:].numel(), **like).reshape(-1, 1, *weight.shape[2:])
    return conv(images if resize is None else resize(images), kernels, **options)


def _matrix(spread: Tensor, weight: Tensor) -> Tensor:
    """S W as a matrix (m * o, n * c)."""
    return torch.einsum("ntm,oct->monc", spread, weight.flatten(2)).flatten(2).flatten(0, 1)


def _packed(matrix: Tensor) -> Tensor:
    """In single precision on a CPU, by oneDNN, as convolutions are: twice as fast as torch's default on some CPUs."""
    single = matrix.dtype == torch.float32 and matrix.device.type == "cpu"
    return matrix.contiguous().to_mkldnn() if single and torch.backends.mkldnn.is_available() else matrix


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows (P, i) times the transpose of a matrix (o, i) that has been packed."""
    return F.linear(rows.to_mkldnn(), matrix).to_dense() if matrix.is_mkldnn else F.linear(rows, matrix)
