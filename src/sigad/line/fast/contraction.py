"""Convolutions of small or enlarged images, summed in the order that costs least.

A convolution, of an image or of an interpolated one, is for each point of the line

    out[m, o] = sum over n, t, c of S[n, t, m] W[o, c, t] x[n, c]

with input pixels n, taps t, output pixels m, channels c and o, and S for what the padding, the stride and the
interpolation do. Usually S goes first: it is the interpolation, and the rest is the library's convolution. Where an
image has fewer pixels than the kernel has taps, most of these multiply nothing but padding, and S and W go first, to
one matrix. Before an image is enlarged, it has fewer pixels to mix the channels of: W and x go first, and S follows, as
a matrix or, for larger images, as a filter.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sigad.line.fast.batch import channels_last, over_batch, single_on_cpu
from sigad.line.fast.memory import kept
from sigad.line.function import LineFunction, constant

WORTH = 0.55
"""Share of the multiplications of the library's convolution from which on another order is no longer taken: its
matrices are smaller, and the sums pass through memory once more."""

FEW = 2**21
"""Numbers up to which images are copied to round their number."""

IN_CACHE = 128
"""So many small images with mixed channels, an array for each tap of the kernel, stay in the cache of a core."""


def convolution(
    conv: Callable, f: LineFunction, weight: Tensor, bias: Tensor | None, options: dict, resize: partial | None = None
) -> LineFunction:
    """A convolution (one group) of f ((N,) C, *spatial), or of `resize` of it, a linear map of each channel's image."""
    weight, bias = constant(weight, f), constant(bias, f)
    spatial = weight.ndim - 2

    def convolved(images: Tensor) -> Tensor:
        count, images = len(images), rounded(images)
        doubling = math.inf if resize is None else _doubling_share(images, weight, options, resize)
        values = _by_matrices(conv, images, weight, options, resize, min(doubling, WORTH))
        if values is None and doubling < WORTH:
            values = doubled_convolution(images, weight)
        if values is None:
            values = conv(images if resize is None else resize(images), weight, bias, **options)
        elif bias is not None:
            values.add_(bias.reshape(-1, *[1] * spatial))
        return values[:count]

    return f.derive(over_batch(convolved, f, (), {}, spatial))


def rounded(images: Tensor) -> Tensor:
    """The images and, if they are small and few, the first ones again, up to a round number of images.

    oneDNN compiles a convolution for each number of images, which takes longer than to convolve a few of them."""
    step = 2 ** max(len(images).bit_length() - 4, 0)
    extra = -len(images) % step
    if not extra or images.numel() > FEW or not single_on_cpu(images):
        return images
    return torch.cat([images, images[:extra]])  # in their layout


def _by_matrices(
    conv: Callable, images: Tensor, weight: Tensor, options: dict, resize: partial | None, limit: float
) -> Tensor | None:
    """S W or W x first, by products of matrices: (P, o, *out) for images (P, c, *size). None if its share of the
    multiplications is not below the limit."""
    size, taps = images.shape[2:], math.prod(weight.shape[2:])
    pixels, (outputs, channels) = math.prod(size), weight.shape[:2]
    matrix_share = pixels / taps * (1 + taps / len(images))  # S and W first, once for all points
    if min(matrix_share, pixels / channels if resize else 1.0) >= limit:
        return None
    key = (conv, size, str(options), resize and (resize.func, str(resize.keywords)))
    spread = kept(("S", *key, weight.shape[2:]), weight, lambda: _spread(conv, size, weight, options, resize))
    mixing_share = pixels / spread[0, 0].numel() + pixels / channels  # W and x first, then S
    if min(matrix_share, mixing_share) >= limit:
        return None
    space, spread = spread.shape[2:], spread.flatten(2)
    rows = images.flatten(2).transpose(1, 2)  # (P, n, c), a view in channels-last layout
    if matrix_share <= mixing_share:
        matrix = kept(("SW", *key), weight, lambda: _packed(_matrix(spread, weight)))
        result = _product(rows.flatten(1), matrix)
    else:
        mixing = kept("W", weight, lambda: _packed(weight.flatten(2).permute(2, 0, 1).flatten(0, 1)))
        spread = spread.flatten(0, 1).T
        parts = []
        for some in rows.split(IN_CACHE if rows.device.type == "cpu" else len(rows)):
            mixed = _product(some.reshape(-1, channels), mixing).view(len(some), pixels * taps, outputs)
            # A product of matrices, which oneDNN makes as a convolution: from some size on twice as fast as torch's.
            large = single_on_cpu(mixed) and spread.numel() > 4096
            parts.append(F.conv1d(mixed, spread[:, :, None]) if large else torch.matmul(spread, mixed))
        result = torch.cat(parts)
    result = result.view(len(images), -1, outputs).transpose(1, 2).unflatten(2, space)
    return channels_last(result) if single_on_cpu(result) and len(space) == 2 else result.contiguous()


def _spread(conv: Callable, size: Sequence[int], weight: Tensor, options: dict, resize: partial | None) -> Tensor:
    """S (pixels, taps, *out): the convolution of the images of one pixel with the kernels of one tap."""
    images, kernels = (
        torch.eye(math.prod(sizes), dtype=weight.dtype, device=weight.device).reshape(-1, 1, *sizes)
        for sizes in (size, weight.shape[2:])
    )
    return conv(images if resize is None else resize(images), kernels, **options)


def _matrix(spread: Tensor, weight: Tensor) -> Tensor:
    """S W as a matrix (m * o, n * c)."""
    return torch.einsum("ntm,oct->monc", spread, weight.flatten(2)).flatten(2).flatten(0, 1)


def _packed(matrix: Tensor) -> Tensor:
    """In single precision on a CPU, by oneDNN, as convolutions are: twice as fast as torch's default on some CPUs."""
    usable = single_on_cpu(matrix) and torch.backends.mkldnn.is_available()
    return matrix.contiguous().to_mkldnn() if usable else matrix


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows (P, i) times the transpose of a matrix (o, i) that has been packed."""
    return F.linear(rows.to_mkldnn(), matrix).to_dense() if matrix.is_mkldnn else F.linear(rows, matrix)


def _doubling_share(images: Tensor, weight: Tensor, options: dict, resize: partial) -> float:
    """The share of the multiplications that :func:`doubled_convolution` takes; infinite if it does not compute this."""
    given = {"stride": 1, "padding": 0, "dilation": 1} | options
    same = given["padding"] == "same" or all(p == 1 for p in _pair(given["padding"]))
    plain = all(v == 1 for name in ("stride", "dilation") for v in _pair(given[name]))
    bilinear = {name: value for name, value in resize.keywords.items() if value}  # without None and False
    doubling = bilinear.keys() == {"scale_factor", "mode"} and bilinear["mode"] == "bilinear"
    if not (doubling and same and plain and weight.shape[2:] == (3, 3) and weight.dtype == torch.float32):
        return math.inf  # in double precision torch has no fast filter for each channel
    if any(scale != 2 for scale in _pair(bilinear["scale_factor"])):
        return math.inf
    _, channels, height, width = images.shape
    border = (1 / height + 1 / width) / 3
    return (1 + 2 / height) * (1 + 2 / width) / 4 + border + 16 / (9 * channels)


def _pair(value) -> tuple:
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)


def doubled_convolution(images: Tensor, weight: Tensor) -> Tensor:
    """conv2d(interpolate(images, scale_factor=2, mode="bilinear"), weight, padding=1) for a kernel of 3x3.

    Bilinear doubling puts zeros between the pixels and smooths with the filter (1, 3, 3, 1) / 4 along either axis. The
    smoothing commutes with the convolution, and a convolution of an image of zeros but for every fourth pixel is the
    transposed one, with a quarter of the multiplications. Both go on beyond the border, where the doubled image would
    have its outermost pixels once more and the padding has zeros: what they contribute is taken away again.
    """
    pixel = torch.zeros((1, 1, 3, 3), dtype=images.dtype, device=images.device)
    pixel[..., 1, 1] = 1.0
    smooth = F.interpolate(pixel, scale_factor=2, mode="bilinear")[..., 1:5, 1:5].expand(len(weight), 1, 4, 4)
    wider = channels_last(F.pad(images, (1, 1, 1, 1), mode="replicate"))
    sparse = F.conv_transpose2d(wider, weight.flip(2, 3).transpose(0, 1), stride=2, padding=1)
    result = F.conv2d(sparse, smooth, groups=len(weight))
    for side, taps in ((slice(0, 1), slice(0, 1)), (slice(-1, None), slice(2, 3))):
        row = F.interpolate(images[:, :, side], scale_factor=(1, 2), mode="bilinear")
        row = F.pad(row, (1, 1, 0, 0), mode="replicate")
        result[:, :, side] -= F.conv2d(row, weight[:, :, taps])
        column = F.interpolate(images[..., side], scale_factor=(2, 1), mode="bilinear")
        result[..., side] -= F.conv2d(column, weight[..., taps], padding=(1, 0))
    return result
