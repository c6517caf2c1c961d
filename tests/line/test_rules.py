"""Every rule against direct evaluation at single points, and the refusal of everything that has no rule."""

# ruff: noqa: B008 (a default argument keeps the constant of one sample)

import copy
import operator
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sigad.line
from sigad.errors import UnsupportedOperationError
from sigad.line.activations import piecewise_linear
from sigad.line.function import RULES, LineFunction, func_name

G = torch.Generator().manual_seed(0)


def rand(*shape) -> Tensor:
    return torch.randn(*shape, generator=G, dtype=torch.float64)


def line(*shape: int, pieces: int = 4) -> LineFunction:
    inner = torch.rand(pieces - 1, generator=G, dtype=torch.float64).sort().values * 2 - 1
    ends = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    points = torch.cat([ends[:1], inner, ends[1:]])
    return LineFunction(points, rand(pieces + 1, *shape))


def check(operation, *functions: LineFunction) -> None:
    """The operation on functions equals the operation on their values, at random points and at the breakpoints."""
    result = operation(*[f.derive(f.values) for f in functions])
    t = torch.cat([torch.rand(12, generator=G, dtype=torch.float64) * 2 - 1, functions[0].breakpoints])
    flat = result if isinstance(result, (tuple, list)) else [result]
    at_points = [f(t) for f in functions]
    for i in range(len(t)):
        expected = operation(*[values[i].clone() for values in at_points])
        expected = expected if isinstance(expected, (tuple, list)) else [expected]
        assert len(expected) == len(flat)
        for got, want in zip(flat, expected, strict=True):
            assert isinstance(got, LineFunction) and got.shape == want.shape
            torch.testing.assert_close(got(t[i]), want, rtol=1e-10, atol=1e-12)


CALLS: dict[str, list] = {}
"""Sample calls by the name of the operation. Every name in RULES needs at least one (or is a query)."""


def sample(names: str, operation, *shapes) -> None:
    for name in names.split():
        CALLS.setdefault(name, []).append((operation, shapes))


def method(name: str, shape, *args, **kwargs) -> None:
    """Sample a Tensor method, and the function of that name where there is one."""
    sample(name, lambda f: getattr(f, name)(*args, **kwargs), shape)
    if hasattr(torch, name):
        sample(name, lambda f: getattr(torch, name)(f, *args, **kwargs), shape)


def inplace(name: str, shape, *args, **kwargs) -> None:
    """Sample an operation in place, on a tensor with a view that sees it and one that does not any more."""

    def run(f):
        g = f.clone()
        view, before = g[0, 1:, ::2].mT, g[..., 0].clone()
        assert getattr(g, name)(*args, **kwargs) is g
        return g, view, before

    sample(name, run, shape)


IMAGE, SQUARE = (1, 3, 8, 6), (1, 4, 4, 4)  # in SQUARE a wrong axis would go unseen by shape
for _shape in (IMAGE, SQUARE):
    n = _shape[1]
    method("view", _shape, 1, -1)
    method("view", _shape, (1, n, -1))
    method("reshape", _shape, (-1, _shape[-1]))
    method("flatten", _shape, 1)
    method("flatten", _shape)
    method("ravel", _shape)
    method("unflatten", _shape, 3, (2, -1))
    method("squeeze", _shape)
    method("squeeze", _shape, 0)
    method("unsqueeze", _shape, -1)
    method("unsqueeze", _shape, 0)
    method("permute", _shape, (0, 3, 1, 2))
    method("transpose", _shape, 1, -1)
    method("transpose", _shape, 0, 1)
    method("swapaxes", _shape, -1, -2)
    method("swapdims", _shape, 1, 2)
    method("movedim", _shape, 1, -1)
    method("moveaxis", _shape, -1, 0)
    method("broadcast_to", _shape, (2, *_shape[1:]))
    sample("expand", lambda f: f.expand(3, -1, -1, -1), _shape)
    sample("expand", lambda f: f.expand(2, 1, *f.shape[1:]), _shape)
    sample("expand_as", lambda f, s=_shape: f.expand_as(torch.empty(2, *s[1:])), _shape)
    sample("view_as", lambda f, s=_shape: f.view_as(torch.empty(s[1], s[2], s[3])), _shape)
    sample("reshape_as", lambda f, s=_shape: f.reshape_as(torch.empty(s[3], s[2], s[1])), _shape)
    sample("contiguous detach", lambda f: f.contiguous().detach(), _shape)
    method("narrow", _shape, 2, 1, 3)
    method("select", _shape, -1, 2)
    method("select", _shape, 0, 0)
    method("split", _shape, 2, dim=1)
    sample("split_with_sizes", lambda f: f.split_with_sizes([1, f.shape[1] - 1], 1), _shape)
    method("chunk", _shape, 2, -1)
    method("tensor_split", _shape, 2, 2)
    method("unbind", _shape, 1)
    method("diagonal", _shape, 0, 1, 2)
    sample("T", lambda f: f[0, 0].T, _shape)
    sample("t", lambda f: f[0, 0].t(), _shape)
    sample("mT", lambda f: f.mT, _shape)
    for index in (0, (slice(None), 1), (..., slice(None, None, 2)), (0, None, slice(1, 3)), (slice(None), [2, 0])):
        sample("__getitem__", lambda f, i=index: f[i], _shape)
    mask = torch.rand(_shape[-2:], generator=G) > 0.5
    sample("__getitem__", lambda f, m=mask: f[..., m], _shape)
    for index in (
        np.array([1, 0]),
        torch.tensor(1),
        np.int64(2),
        np.array(1),
        True,
        torch.tensor(True),
        range(2),
        None,
    ):
        sample("__getitem__", lambda f, i=index: f[0, i], _shape)
    method("hsplit", _shape, [1])
    method("vsplit", _shape, [1])
    method("dsplit", _shape, [1])
    sample("unfold", lambda f: f.unfold(2, 2, 1), _shape)
    sample("unfold", lambda f: f.unfold(-1, 3, 2), _shape)

    # Written to: by slices, masks and lists of indices; numbers, constants and functions; into views and into blanks.
    indices = (0, (0, 1), (..., 0), (slice(None), [2, 0]), (0, slice(1, 3), None, -1), (..., mask), np.s_[:, 1:, ::2])
    for index in indices:
        part = torch.zeros(_shape)[index].shape

        def write(f, g, i=index, c=rand(*part[1:]), n=part[1:].numel()):
            results = []
            for value in (0.5, np.float64(0.5), c, g.flatten()[:n].reshape(c.shape), g.flatten()[0]):
                new = f.clone()
                views = new[:, 1], new.transpose(0, -1), new.mT[..., 1:]
                new[i] = value
                results += [new, *views]
            return tuple(results)

        sample("__setitem__", write, _shape, _shape)

    def through_views(f):
        g = f.clone()
        nothing = g[:, :0]
        g[:, 0] += 1.0
        g[:, 0] = g[:, 1]
        g.mT[:] = g.mT
        g[:, 1:, 1].relu_()
        g.mT[0, 0].mul_(2.0)
        left, right = g.split([1, g.shape[1] - 1], 1)
        right -= left
        F.relu(left, inplace=True)
        for row in g[0, 0]:
            row.clamp_(max=0.3)
        g.view(-1)[::3].neg_()
        g.squeeze(0)[1].copy_(f[0, 0])
        nothing.add_(1.0)
        return g, left, right, nothing

    sample("__setitem__ copy_", through_views, _shape)

    def into_blanks(f):
        a, b, c = torch.zeros_like(f), f.new_ones(f.shape), torch.full_like(f, 2.0)
        part, turned = a[:, :1], b.mT
        b += 1.0  # still constants
        part.add_(0.5)
        a[:, 1:] = f[:, 1:]
        turned[..., 0] = f[..., 0, :]
        c[0, 0].copy_(f[0, 1])
        d = torch.empty_like(f)
        d[...] = f.relu()
        e = torch.zeros_like(f)
        e += f
        return a, b, c, d, e, part, turned, torch.ones_like(f) * f, (torch.zeros_like(f) == 0) * f

    sample("__setitem__ zeros_like", into_blanks, _shape)
    inplace("copy_", _shape, rand(_shape[-1]))
    sample("copy_", lambda f, g: f.clone().copy_(g[:, :, :1]), _shape, _shape)
    inplace("fill_", _shape, 0.3)
    inplace("zero_", _shape)
    sample("fill_ zero_", lambda f, g: (f.clone().fill_(g[0, 0, 0, 0]), torch.zero_(g.clone())), _shape, _shape)

    for dim in (0, 1, -1):
        for keep in (False, True):
            sample("max", lambda f, d=dim, k=keep: f.max(d, keepdim=k)[0], _shape)
            sample("min", lambda f, d=dim, k=keep: torch.min(f, dim=d, keepdim=k).values, _shape)
            sample("aminmax", lambda f, d=dim, k=keep: tuple(torch.aminmax(f, dim=d, keepdim=k)), _shape)
            sample("median", lambda f, d=dim, k=keep: f.median(d, k)[0], _shape)
            sample("kthvalue", lambda f, d=dim, k=keep: torch.kthvalue(f, 1, d, k).values, _shape)
            for p in (1, float("inf"), float("-inf")):
                sample("norm", lambda f, d=dim, k=keep, p=p: f.norm(p, d, k), _shape)
                sample("linalg_norm", lambda f, d=dim, k=keep, p=p: torch.linalg.norm(f, p, d, k), _shape)
                sample("linalg_vector_norm", lambda f, d=dim, p=p: torch.linalg.vector_norm(f, p, d), _shape)
        sample("topk", lambda f, d=dim: f.topk(1, d).values, _shape)
        sample("sort", lambda f, d=dim: f.sort(d)[0], _shape)
    sample("sort", lambda f: f.sort(descending=True).values, _shape)
    sample("sort", lambda f: torch.sort(f.flatten(), stable=True).values, _shape)
    sample("topk", lambda f: f.topk(3, largest=False).values, _shape)
    sample("msort", lambda f: f.msort(), _shape)
    sample("kthvalue", lambda f: f.kthvalue(2, 1).values, _shape)
    sample("rrelu", lambda f: torch.rrelu(4 * f), _shape)
    sample("median", lambda f: f.median(), _shape)
    sample("aminmax", lambda f: tuple(f.aminmax()), _shape)
    sample("norm", lambda f: (f.norm(1), torch.norm(f, p=1, dim=(1, 2)), f[0, 0, 0, 0].norm(p=1)), _shape)
    for reduction in ("mean", "sum", "none"):
        sample("l1_loss", lambda f, g, r=reduction: F.l1_loss(f, g, reduction=r), _shape, _shape)
        sample("l1_loss", lambda f, c=rand(*_shape), r=reduction: nn.L1Loss(reduction=r)(c, f), _shape)
    sample("fmax fmin", lambda f, g: (torch.fmax(f, g), f.fmin(g), f.fmax(rand(1) * 0 + 0.2)), _shape, _shape)
    sample("lerp", lambda f, g: (torch.lerp(f, g, 0.3), f.lerp(g, rand(1) * 0 + 0.7)), _shape, _shape)
    sample("lerp", lambda f, c=rand(*_shape): c.lerp(c.flip(1), f), _shape)
    inplace("lerp_", _shape, rand(*_shape), 0.25)
    sample("addcmul", lambda f, g, c=rand(_shape[-1]): torch.addcmul(f, g, c, value=0.5), _shape, _shape)
    sample("addcdiv", lambda f, g, c=rand(_shape[-1]): torch.addcdiv(f, g, c, value=0.5), _shape, _shape)
    inplace("addcmul_", _shape, rand(*_shape), rand(_shape[-1]))
    sample("trace", lambda f: f[0, 0].trace(), _shape)
    sample("tensordot", lambda f, w=rand(_shape[-1], 3, 2): torch.tensordot(f, w, dims=1), _shape)
    sample("tensordot", lambda f, w=rand(3, _shape[1]): torch.tensordot(w, f, dims=([1], [1])), _shape)
    rows = torch.tensor([1, 0, 1])
    sample("index_add", lambda f, g, i=rows: f.index_add(1, i, g[:, :3], alpha=2.0), _shape, _shape)
    sample("index_add", lambda f, i=rows, c=rand(*_shape): c.index_add(1, i, f[:, :3]), _shape)
    sample("index_copy", lambda f, g: f.index_copy(1, torch.tensor([2, 0]), g[:, :2]), _shape, _shape)
    method("index_fill", _shape, 1, rows, 0.3)
    places = torch.randint(3, _shape, generator=G)
    sample("scatter_add", lambda f, g, i=places: f.scatter_add(1, i, g), _shape, _shape)
    sample("scatter_add_", lambda f, i=places: torch.zeros_like(f).scatter_add_(1, i, f), _shape)
    sample("scatter", lambda f, g, i=places[:, :1]: f.scatter(1, i, g[:, :1]), _shape, _shape)
    sample("select_scatter", lambda f, g: f.select_scatter(g[:, 0], 1, 1), _shape, _shape)
    sample("slice_scatter", lambda f, g: f.slice_scatter(g[:, :2], 1, 1, 3), _shape, _shape)
    sample("diagonal_scatter", lambda f, g: f[0, 0].diagonal_scatter(g[0, 0].diagonal()), _shape, _shape)
    grid_ = rand(1, 5, 3, 2).clamp(-1.5, 1.5)
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            options = {"mode": mode, "padding_mode": padding, "align_corners": False}
            sample("grid_sample", lambda f, o=options, g=grid_: F.grid_sample(f, g, **o), _shape)
    where = F.max_pool2d(rand(*_shape), 2, return_indices=True)[1]
    sample("max_unpool2d", lambda f, i=where: F.max_unpool2d(F.avg_pool2d(f, 2), i, 2), _shape)
    sample("max_pool2d_with_indices", lambda f: F.max_pool2d(f, 2, return_indices=True)[0], _shape)
    sample("adaptive_max_pool2d_with_indices", lambda f: F.adaptive_max_pool2d(f, 2, return_indices=True)[0], _shape)
    sample("channel_shuffle", lambda f: F.channel_shuffle(f, 1), _shape)
    sample("to", lambda f: f.to(torch.float64, copy=True).add_(1.0) + f, _shape)
    sample("amax norm sort topk", lambda f: f.sum().amax().add_(1.0) + f.sum().sort()[0] + f.sum().topk(1)[0], _shape)
    sample("__iter__", lambda f: list(f[0]), _shape)
    method("flip", _shape, (1, -1))
    method("fliplr", _shape)
    method("flipud", _shape)
    method("roll", _shape, 2, -1)
    method("roll", _shape, 1)
    method("rot90", _shape, 1, (-2, -1))
    sample("repeat", lambda f: f.repeat(2, 1, 1, 2), _shape)
    method("tile", _shape, (2, 2))
    method("repeat_interleave", _shape, 2, dim=1)
    method("index_select", _shape, 1, torch.tensor([2, 0, 2]))
    sample("gather", lambda f, i=torch.randint(3, _shape, generator=G): f.gather(1, i), _shape)
    sample("take_along_dim", lambda f, i=torch.randint(3, _shape, generator=G): f.take_along_dim(i, 1), _shape)
    method("tril", _shape)
    method("triu", _shape, 1)
    method("masked_fill", _shape, mask, 2.5)
    sample("where", lambda f, g, m=mask: torch.where(m, f, g), _shape, _shape)
    sample("where", lambda f, m=mask: f.where(m, 0.5), _shape)
    for keep in (False, True):
        method("mean", _shape, (-1, -2), keep)
        method("sum", _shape, (2, -1), keep)
        method("amax", _shape, (-1, -2), keep)
        method("amin", _shape, 1, keep)
    method("mean", _shape)
    method("mean", _shape, 0)
    method("sum", _shape)
    method("max", _shape)
    method("min", _shape)
    method("amax", _shape)
    method("amin", _shape, (0, 2))
    method("cumsum", _shape, 2)
    method("diff", _shape, dim=1)
    method("clone", _shape)
    for name in ("neg", "negative", "positive", "abs", "absolute"):
        method(name, _shape)
    sample("__neg__", operator.neg, _shape)
    sample("__pos__", operator.pos, _shape)
    sample("__abs__", operator.abs, _shape)
    inplace("neg_", _shape)
    for name in ("cat", "concat", "concatenate"):
        for dim in (0, 1, -1, 2):
            sample(name, lambda f, g, n=name, d=dim: getattr(torch, n)([f, g], d), _shape, _shape)
    sample("cat", lambda f, c=rand(*_shape): torch.cat((c, f, c), dim=1), _shape)
    for dim in (0, 1, -1):
        sample("stack", lambda f, g, d=dim: torch.stack([f, g], d), _shape, _shape)
    for name in ("hstack", "vstack", "dstack"):
        sample(name, lambda f, g, n=name: getattr(torch, n)([f, g]), _shape, _shape)

    # Operands that broadcast along any axis, on either side, with more and with fewer axes than the function.
    for constant in (2.5, rand(_shape[-1]), rand(_shape[1], 1, 1), rand(2, 1, 1, 1, 1), rand(*_shape), np.float64(1.5)):
        for op, names in (
            (operator.add, "__add__ add"),
            (operator.sub, "__sub__ sub"),
            (operator.mul, "__mul__ mul"),
            (operator.truediv, "__truediv__ div"),
        ):
            sample(names, lambda f, c=constant, o=op: o(f, c), _shape)
        sample("__radd__", lambda f, c=constant: c + f, _shape)
        sample("__rsub__ rsub", lambda f, c=constant: c - f, _shape)
        sample("__rmul__", lambda f, c=constant: c * f, _shape)
    for name in ("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide"):
        method(name, _shape, rand(_shape[-1]))
        inplace(name + "_", _shape, rand(_shape[-1]))
    sample("add sub rsub", lambda f, g: torch.rsub(f.add(g, alpha=2.0), g - f), _shape, _shape)
    sample("__rmul__", lambda f: np.float64(2.0) * f, _shape)
    for name in ("__iadd__", "__isub__", "__imul__", "__itruediv__"):
        inplace(name, _shape, rand(*_shape))
    for other in (rand(_shape[-1]), 0.3):
        sample("maximum", lambda f, c=torch.as_tensor(other): torch.maximum(f, c), _shape)
        sample("minimum", lambda f, c=torch.as_tensor(other): torch.minimum(c, f), _shape)
        sample("max", lambda f, c=torch.as_tensor(other): f.max(c), _shape)
    sample("maximum max", lambda f, g: torch.maximum(f, g), _shape, _shape)
    sample("minimum min", lambda f, g: torch.min(f, g), _shape, _shape)

    for name, args in (
        ("relu", ()),
        ("relu6", ()),
        ("leaky_relu", (0.2,)),
        ("hardtanh", (-0.5, 0.7)),
        ("hardsigmoid", ()),
        ("softshrink", (0.3,)),
        ("softshrink", ()),
        ("threshold", (0.2, 0.2)),
        ("rrelu", ()),
    ):
        sample(name, lambda f, n=name, a=args: getattr(F, n)(4 * f, *a), _shape)
    for name in ("relu_", "abs_", "absolute_"):
        inplace(name, _shape)
    inplace("clamp_", _shape, -0.2, 0.4)
    inplace("clip_", _shape, max=0.4)
    inplace("clamp_min_", _shape, 0.4)
    inplace("clamp_max_", _shape, 0.4)
    sample("prelu", lambda f, w=rand(_shape[1]): F.prelu(f, w), _shape)
    method("clamp", _shape, -0.2, 0.4)
    method("clip", _shape, max=0.1)
    method("clamp_min", _shape, 0.1)
    method("clamp_max", _shape, 0.1)
    sample("clamp", lambda f, g: f.clamp(min=g, max=rand(1).abs() * 0 + 0.5), _shape, _shape)
    knots, heights, slopes = torch.tensor([-1.0, 0.1, 2.0]).double(), rand(3), rand(4)
    slopes[1:3] = heights.diff() / knots.diff()
    sample("piecewise_linear", lambda f, k=knots, h=heights, s=slopes: piecewise_linear(3 * f, k, h, s), _shape)

    for name in "dropout alpha_dropout feature_alpha_dropout dropout2d dropout3d".split():
        sample(name, lambda f, n=name: getattr(F, n)(f, training=False), _shape)
    sample("dropout1d", lambda f: F.dropout1d(f[0], training=False), _shape)
    sample("feature_dropout", lambda f: torch.feature_dropout(f, 0.5, False), _shape)
    sample("to", lambda f: f.to(torch.float64).to(f.device), _shape)
    sample("double type_as type", lambda f: f.double().type_as(torch.empty(0).double()).type(torch.float64), _shape)
    sample("pixel_shuffle", lambda f: F.pixel_shuffle(f.repeat(1, 4, 1, 1), 2), _shape)
    sample("pixel_unshuffle", lambda f: F.pixel_unshuffle(f, 2), _shape)
    sample("channel_shuffle", lambda f: F.channel_shuffle(torch.cat([f, f], 1), 2), _shape)

    weight, bias = rand(5, _shape[1], 3, 3), rand(5)
    for batch in (slice(None), 0):  # with and without a batch axis
        sample("conv2d", lambda f, w=weight, b=bias, i=batch: F.conv2d(f[i], w, b, 2, 1), _shape)
        turned = weight.transpose(0, 1)
        sample("conv_transpose2d", lambda f, w=turned, i=batch: F.conv_transpose2d(f[i], w, stride=2), _shape)
        sample("avg_pool2d", lambda f, i=batch: F.avg_pool2d(f[i], 3, 2, 1, ceil_mode=True), _shape)
        sample("adaptive_avg_pool2d", lambda f, i=batch: F.adaptive_avg_pool2d(f[i], (2, 3)), _shape)
        sample("max_pool2d", lambda f, i=batch: F.max_pool2d(f[i], 3, 2, 1, ceil_mode=True), _shape)
        sample("max_pool2d", lambda f, i=batch: F.max_pool2d(f[i], (2, 3), (1, 2), (1, 0), (2, 1)), _shape)
        sample("adaptive_max_pool2d", lambda f, i=batch: F.adaptive_max_pool2d(f[i], (3, 2)), _shape)
        sample("unfold", lambda f, i=batch: F.unfold(f[i], 3, padding=1), _shape)
    sample("conv2d", lambda f, w=rand(6, 1, 3, 3): F.conv2d(f[:, :3], w, groups=3, padding="same"), _shape)
    for mode in ("nearest", "bilinear", "bicubic", "area"):
        sample("interpolate", lambda f, m=mode: F.interpolate(f, scale_factor=2, mode=m), _shape)
    sample("interpolate", lambda f: F.interpolate(f, (5, 7), mode="bilinear", align_corners=True), _shape)
    for mode in ("constant", "reflect", "replicate", "circular"):
        sample("pad", lambda f, m=mode: F.pad(f, (1, 2, 0, 1), mode=m), _shape)
        sample("pad", lambda f, m=mode: F.pad(f[0], (1, 2, 0, 1), mode=m), _shape)
    sample("pad", lambda f: F.pad(f, (0, 0, 0, 0, 1, 1, 0, 1), value=0.5), _shape)
    stats = (rand(_shape[1]), rand(_shape[1]).exp(), rand(_shape[1]), rand(_shape[1]))
    sample("batch_norm", lambda f, s=stats: F.batch_norm(f, *s), _shape)

    for name in ("matmul", "__matmul__"):
        sample(name, lambda f, w=rand(_shape[-1], 5): f @ w, _shape)
        sample(name, lambda f, w=rand(2, _shape[1], 3, _shape[-1]): f @ w.mT, _shape)
    sample("__rmatmul__ matmul", lambda f, w=rand(5, _shape[2]): w @ f, _shape)
    sample("linear", lambda f, w=rand(5, _shape[-1]), b=bias: F.linear(f, w, b), _shape)
    sample("mm", lambda f, w=rand(_shape[-1], 2): f[0, 0].mm(w), _shape)
    sample("mv", lambda f, w=rand(_shape[-1]): f[0, 0].mv(w), _shape)
    sample("dot", lambda f, w=rand(_shape[-1]): f[0, 0, 0].dot(w), _shape)
    sample("inner", lambda f, w=rand(3, _shape[-1]): torch.inner(f, w), _shape)
    sample("outer", lambda f, w=rand(3): torch.outer(w, f[0, 0, 0]), _shape)
    sample("bmm", lambda f, w=rand(_shape[1], _shape[-1], 2): torch.bmm(f[0], w), _shape)
    sample("addmm", lambda f, g, w=rand(_shape[-1], 2): torch.addmm(g[0, 0, 0, :2], f[0, 0], w), _shape, _shape)
    sample("addmv", lambda f, g, w=rand(_shape[-1]): torch.addmv(g[0, 0, 0, 0], f[0, 0], w), _shape, _shape)
    sample("baddbmm", lambda f, w=rand(_shape[1], _shape[-1], 2): torch.baddbmm(rand(1) * 0, f[0], w), _shape)
    sample("einsum", lambda f, w=rand(_shape[1], 3): torch.einsum("nchw,cd->ndhw", f, w), _shape)

for n in (1, 3):
    shape = (2, 3, *(6, 5, 4)[:n])
    sample(f"conv{n}d", lambda f, n=n, w=rand(4, 3, *[3] * n): getattr(F, f"conv{n}d")(f, w, padding=1), shape)
    sample(f"conv_transpose{n}d", lambda f, n=n, w=rand(3, 2, *[2] * n): getattr(F, f"conv_transpose{n}d")(f, w), shape)
    for name in ("avg_pool", "max_pool"):
        sample(f"{name}{n}d", lambda f, n=n, m=name: getattr(F, f"{m}{n}d")(f, 2), shape)
        sample(f"adaptive_{name}{n}d", lambda f, n=n, m=name: getattr(F, f"adaptive_{m}{n}d")(f, 3), shape)
sample("conv1d", lambda f, w=rand(4, 3, 3): F.conv1d(f, w), (3, 3))  # no batch axis, square
sample("max_pool1d", lambda f: F.max_pool1d(f, 2), (3, 4))
for n in (1, 3):
    shape = (2, 3, *(6, 4, 4)[:n])
    where = getattr(F, f"max_pool{n}d")(rand(*shape), 2, return_indices=True)[1]
    sample(f"max_unpool{n}d", lambda f, n=n, i=where: getattr(F, f"max_unpool{n}d")(
        getattr(F, f"avg_pool{n}d")(f, 2), i, 2), shape)  # fmt: skip
    for name in ("max_pool", "adaptive_max_pool"):
        sample(f"{name}{n}d_with_indices", lambda f, n=n, m=name: getattr(F, f"{m}{n}d")(
            f, 2, return_indices=True)[0], shape)  # fmt: skip
sample("fold", lambda f: F.fold(f, (4, 5), (2, 2)), (1, 8, 12))
for mode in ("linear", "nearest"):
    sample("interpolate", lambda f, m=mode: F.interpolate(f, scale_factor=2, mode=m), (1, 3, 5))
for name in ("upsample", "upsample_nearest", "upsample_bilinear"):
    sample(name, lambda f, n=name: getattr(F, n)(f, scale_factor=2), IMAGE)
for name in ("leaky_relu_", "hardtanh_", "threshold_"):
    args = {"leaky_relu_": (0.1,), "hardtanh_": (-0.5, 0.5), "threshold_": (0.1, 0.1)}[name]
    sample(name, lambda f, n=name, a=args: getattr(F, n)(f.clone(), *a), IMAGE)
sample("amax", lambda f: f[0, 0, 0, 0].amax(), IMAGE)  # rank zero
sample("batch_norm", lambda f: F.batch_norm(f, torch.zeros(3).double(), torch.ones(3).double()), (2, 3))

CASES = [(name, *call) for name, calls in CALLS.items() for call in calls]
NO_SAMPLE_NEEDED = set(  # out-of-place samples cover them: `outermost` runs the same rule and then rebinds
    "negative_ masked_fill_ cumsum_ tril_ triu_ swapaxes_ swapdims_ squeeze_ unsqueeze_ transpose_ t_ rrelu_ relu6_ "
    "prelu_ dropout_ alpha_dropout_ feature_alpha_dropout_ feature_dropout_ detach_ where_ addmm_ baddbmm_ addmv_ "
    "_threshold __rdiv__ __rtruediv__ __idiv__ __div__ float positive_ index_add_ index_copy_ index_fill_ scatter_ "
    "addcdiv_".split()
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "operation", "shapes"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_rule_equals_direct_evaluation(name, operation, shapes):
    check(operation, *[line(*shape, pieces=3 + i) for i, shape in enumerate(shapes)])


def test_every_rule_has_a_sample():
    queries = {name for name in map(func_name, (f for f, r in RULES.items() if r.__name__ == "query"))}
    names = {func_name(func) for func in RULES}
    assert names - queries - set(CALLS) - NO_SAMPLE_NEEDED == set()


def overridable() -> list:
    functions = [f for group in torch.overrides.get_overridable_functions().values() for f in group]
    return list({id(f): f for f in functions}.values())


@pytest.mark.filterwarnings("ignore")
def test_everything_without_a_rule_raises():
    f, refused = line(2, 2), 0
    functions = overridable()
    assert len(functions) > 1000
    for func in functions:
        if func in RULES:
            continue
        with pytest.raises(UnsupportedOperationError) as error:
            LineFunction.__torch_function__(func, (LineFunction,), (f,), {})
        assert func_name(func) in str(error.value)
        refused += 1
    assert refused > 800


PYTHONS = set(  # of any Python object, or of the class and not of the numbers
    "__torch_function__ __torch_dispatch__ __array_ufunc__ __array_priority__ __class__ __dict__ __doc__ __module__ "
    "__hash__ __weakref__ __new__ __init_subclass__ __subclasshook__ __repr__ __format__ __annotations__ __reduce_ex__ "
    "__deepcopy__ __dlpack_c_exchange_api__ _fix_weakref _view_func _view_func_unsafe _rev_view_func_unsafe "
    "_has_symbolic_sizes_strides _python_dispatch _use_count "
    "_dtensor__new__ _make_subclass _make_wrapper_subclass".split()
)


@pytest.mark.filterwarnings("ignore")
def test_no_attribute_of_tensors_passes_silently():
    """Every method and property of Tensor, reached as code in a module would reach it."""
    own, tried = {"shape", "values"}, 0
    for name in sorted(set(dir(torch.Tensor)) - PYTHONS - own):
        original = getattr(torch.Tensor, name)
        if getattr(LineFunction, name, None) is getattr(object, name, name):
            continue
        if (original if callable(original) else getattr(original, "__get__", None)) in RULES:
            continue
        f = line(2, 2)
        for arguments in ((), (f,), (f, f), (1,), (1, 1)):
            try:
                attribute = getattr(f, name)
                result = attribute(*arguments) if callable(attribute) else attribute
            except UnsupportedOperationError:
                tried += 1
                break
            except (TypeError, RuntimeError):  # these arguments do not fit, or torch has removed it
                continue
            assert result is NotImplemented, name
    assert tried > 400


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "operation", "shapes"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_what_shares_memory_in_torch_is_known_to_share_it(name, operation, shapes):
    """Where a result of torch is a view of an argument, or is it, an operation in place on one must be seen in the
    other, or refused; where it is a copy, it must not be seen."""
    functions = [line(*shape) for shape in shapes]
    tensors = [f.values[0].clone() for f in functions]

    def results(inputs):
        result = operation(*inputs)
        return [r for r in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(r, Tensor)]

    for got, want in zip(results(functions), results(tensors), strict=True):
        for f, tensor in zip(functions, tensors, strict=True):
            shared = torch._C._is_alias_of(want, tensor)
            linked = got is f or (got.views is not None and any(g is f for g in got.views))
            assert linked or not shared
            assert shared or got is not f
            if linked and not shared:  # it may be a view in other layouts
                assert got.place is None


REFUSED = {
    "square": lambda f: f * f,
    "product": lambda f: f * (f + 1.0),
    "matmul": lambda f: f @ f.mT,
    "einsum": lambda f: torch.einsum("nchw,nchw->n", f, f),
    "linear": lambda f: F.linear(f, f[0, 0]),
    "weight": lambda f: F.conv2d(f, f),
    "power": lambda f: f**2,
    "quotient": lambda f: 1.0 / f,
    "quotient_of_two": lambda f: f / f,
    "floor": lambda f: torch.div(f, 2.0, rounding_mode="floor"),
    "softmax": lambda f: f.softmax(1),
    "sigmoid": lambda f: torch.sigmoid(f),
    "silu": lambda f: F.silu(f),
    "silu_module": lambda f: nn.SiLU()(f),
    "gelu": lambda f: nn.GELU()(f),
    "hardswish": lambda f: F.hardswish(f),
    "group_norm": lambda f: nn.GroupNorm(2, 4).double()(f),
    "layer_norm": lambda f: F.layer_norm(f, f.shape[1:]),
    "instance_norm": lambda f: F.instance_norm(f),
    "batch_norm": lambda f: nn.BatchNorm2d(4).double().train()(f),
    "batch_norm_without_statistics": lambda f: nn.BatchNorm2d(4, track_running_stats=False).double().eval()(f),
    "dropout": lambda f: nn.Dropout().train()(f),
    "dropout_default": lambda f: F.dropout(f),
    "threshold": lambda f: F.threshold(f, 0.5, 0.0),
    "pool_indices": lambda f: F.max_pool2d(f, 2, return_indices=True)[1] + 1,
    "adaptive_pool_indices": lambda f: F.adaptive_max_pool2d(f, 2, return_indices=True)[1].shape,
    "max_indices": lambda f: f.gather(1, f.max(1, keepdim=True)[1]),
    "sort_indices": lambda f: torch.zeros(4)[f.sort()[1]],
    "unpool": lambda f: F.max_unpool2d(*F.max_pool2d(f, 2, return_indices=True), 2),
    "topk_without_order": lambda f: f.topk(2, sorted=False),
    "argsort": lambda f: f.argsort(),
    "euclidean_norm": lambda f: f.norm(2, 1),
    "matrix_norm": lambda f: torch.linalg.norm(f[0, 0], 1),
    "frobenius_norm": lambda f: torch.norm(f),
    "weighted_loss": lambda f: F.l1_loss(f, f.detach().clone(), size_average=True),
    "moving_grid": lambda f: F.grid_sample(torch.zeros(1, 4, 4, 4).double(), f[:, :2].permute(0, 2, 3, 1)),
    "moving_sample": lambda f: F.grid_sample(f, f[:, :2].permute(0, 2, 3, 1)),
    "tensordot": lambda f: torch.tensordot(f, f),
    "addcmul": lambda f: torch.addcmul(f, f, f),
    "addcdiv": lambda f: torch.addcdiv(f, f, f),
    "lerp": lambda f: f.lerp(f + 1.0, f),
    "scatter_product": lambda f: f.scatter(1, torch.zeros(f.shape, dtype=torch.int64), f, reduce="multiply"),
    "overlapping_write": lambda f: f[:, :1].expand(-1, 4, -1, -1).mul_(2.0),
    "overlapping_copy": lambda f: operator.setitem(f, np.s_[:, 1:], f[:, :-1]),
    "overlapping_copy_of_a_view": lambda f: f.mT[0].copy_(f[0]),
    "overlapping_sum": lambda f: f[:, 1:].add_(f[:, :-1]),
    "overlapping_sum_by_broadcast": lambda f: f.add_(f[:, :1]),
    "overlapping_scatter": lambda f: f[:, :2].scatter_add_(1, torch.zeros(1, 2, 4, 4, dtype=torch.int64), f[:, 1:3]),
    "scatter_of_itself": lambda f: f.scatter_add_(1, torch.zeros(1, 4, 4, 4, dtype=torch.int64), f),
    "write_to_repeated_numbers_alone": lambda f: (f + 1.0).expand(2, -1, -1, -1).relu_(),
    "write_to_repeated_numbers_of_windows": lambda f: (f + 1.0).unfold(1, 3, 1)[..., 0].relu_(),
    "write_to_repeated_numbers_of_few_windows": lambda f: f.repeat(1, 2, 1, 1)[:, :6].unfold(1, 3, 2).relu_(),
    "write_to_repeated_blanks": lambda f: torch.zeros_like(f[:, :1]).expand(-1, 4, -1, -1).copy_(f),
    "moving_index": lambda f: operator.setitem(torch.zeros_like(f), f.argmax(), 1.0),
    "argmax": lambda f: f.argmax(),
    "norm": lambda f: f.norm(),
    "greater": lambda f: f > 0,
    "equal": lambda f: f == 1.0,
    "reverse_comparison": lambda f: torch.zeros(()) < f,
    "bool": lambda f: bool(f[0, 0, 0, 0]),
    "if": lambda f: 1 if f.sum() else 2,
    "item": lambda f: f[0, 0, 0, 0].item(),
    "float": lambda f: float(f.sum()),
    "int": lambda f: int(f.sum()),
    "tolist": lambda f: f.tolist(),
    "numpy": lambda f: f.numpy(),
    "asarray": lambda f: np.asarray(f),
    "numpy_ufunc": lambda f: np.exp(f),
    "data": lambda f: f.data,
    "set_data": lambda f: setattr(f, "data", torch.zeros(1)),
    "grad_fn": lambda f: f.grad_fn,
    "backward": lambda f: f.sum().backward(),
    "half": lambda f: f.to(torch.float16),
    "integer": lambda f: f.to(torch.int64),
    "other_device": lambda f: f.to("meta"),
    "complex": lambda f: f * torch.ones((), dtype=torch.complex128),
    "bits": lambda f: f.view(torch.int64),
    "integer_sum": lambda f: f.sum(dtype=torch.int64),
    "as_strided": lambda f: f.as_strided((2, 2), (1, 1)),
    "set_item_of_constant": lambda f: operator.setitem(torch.zeros(1, 4, 4, 4).double(), 0, f[0]),
    "in_place_into_constant": lambda f: torch.zeros(1, 4, 4, 4).double().add_(f),
    "in_place_operator_into_constant": lambda f: operator.iadd(torch.zeros(1, 4, 4, 4).double(), f),
    "copy_": lambda f: torch.zeros(1, 4, 4, 4).double().copy_(f),
    "fill_": lambda f: torch.zeros(1, 4, 4, 4).double().fill_(f[0, 0, 0, 0]),
    "out": lambda f: torch.add(f, 1.0, out=torch.zeros(1)),
    "index": lambda f: torch.zeros(3)[f],
    "contains": lambda f: 1.0 in f,
    "random": lambda f: torch.bernoulli(f),
    "randn_like": lambda f: torch.randn_like(f),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises((UnsupportedOperationError, TypeError) if name == "numpy_ufunc" else UnsupportedOperationError):
        REFUSED[name](line(*SQUARE))


@pytest.mark.filterwarnings("ignore:To copy construct")
def test_copies_of_a_function_do_not_become_numbers():
    f = line(2)
    assert torch.as_tensor(f) is f  # as for tensors
    for convert in (torch.tensor, lambda f: torch.tensor([f]), lambda f: np.array([f], float), torch.Tensor):
        with pytest.raises((UnsupportedOperationError, TypeError, ValueError, RuntimeError)):
            convert(line(2))


def test_errors_name_the_way_out():
    f = line(*SQUARE)
    for operation, words in {
        "silu_module": "sigad.line.piecewise",
        "group_norm": "batch normalisation",
        "greater": "sigad.line.above",
        "product": "product",
        "batch_norm": "eval()",
        "dropout": "eval()",
        "max_indices": "values only",
        "in_place_into_constant": "zeros_like",
    }.items():
        with pytest.raises(UnsupportedOperationError, match=words.replace("(", r"\(").replace(")", r"\)")):
            REFUSED[operation](f)


def test_in_place_on_what_may_be_a_view_raises():
    """In torch that depends on the layout in memory."""
    f = line(*SQUARE)
    for make in (
        lambda f: f.flatten(1), lambda f: f.reshape(-1), lambda f: f.contiguous(), lambda f: F.channel_shuffle(f, 1),
        lambda f: torch.einsum("nchw->nwhc", f), lambda f: f.to(memory_format=torch.channels_last),
    ):  # fmt: skip
        may_be = make(f)
        view = may_be[0]
        for change in (Tensor.relu_, lambda x: F.relu(x, inplace=True), lambda x: operator.iadd(x, 1.0)):
            for target in (f, may_be, view):
                with pytest.raises(UnsupportedOperationError, match="may be a view"):
                    change(target)
        del view, may_be
    alone = line(*SQUARE).flatten(1)  # nothing else sees the memory of this one
    assert (alone.relu_().values >= 0).all()


def test_in_place_never_writes_into_the_callers_tensors():
    f = line(*SQUARE)
    values = f.values.clone()
    g = f.derive(f.values)
    g.relu_()
    g += 1.0
    torch.testing.assert_close(f.values, values, rtol=0, atol=0)


def test_in_place_is_seen_through_every_name_of_the_tensor():
    f = line(*SQUARE)
    same = nn.Dropout().eval()(f)
    torch.relu_(f)
    assert same is f and (same.values >= 0).all()


def test_queries_answer_for_one_point():
    f = line(*IMAGE)
    assert f.shape == f.size() == torch.Size(IMAGE) and f.size(-1) == 6 and f.dim() == f.ndim == 4 and len(f) == 1
    assert f.numel() == torch.numel(f) == 144 and f.dtype == torch.float64 and f.device.type == "cpu"
    assert f.is_floating_point() and torch.is_floating_point(f) and not f.is_cuda and not f.requires_grad
    assert torch.zeros_like(f).shape == f.new_zeros(IMAGE).shape == f.shape
    assert isinstance(torch.ones_like(f), Tensor)
    b, c, h, w = f.shape
    assert (b, c, h, w) == IMAGE
    mask = torch.ones(1, 1, 8, 6)
    assert mask.expand_as(f).shape == IMAGE  # only the shape of f is used
    assert not hasattr(f, "no_such_attribute")


def test_constants_take_the_precision_of_the_function():
    f = line(*SQUARE)
    g = LineFunction(f.breakpoints, f.values.float())
    assert (g + torch.ones(4, dtype=torch.float64)).dtype == torch.float32
    assert F.conv2d(f, torch.ones(2, 4, 3, 3)).dtype == torch.float64


def test_constants_take_the_precision_of_a_blank_that_is_not_written_to():
    f = line(*SQUARE)
    blank = torch.ones_like(LineFunction(f.breakpoints, f.values.float()))
    weight, target = torch.ones(4, dtype=torch.float64), torch.zeros(blank.shape, dtype=torch.float64)
    assert torch.tensordot(blank, weight, 1).dtype == (blank @ weight).dtype == torch.float32
    target.copy_(blank)
    assert (target == 1).all()


def test_functions_on_different_windows_do_not_mix():
    f = line(2)
    g = LineFunction(f.breakpoints + 1, f.values)
    with pytest.raises(sigad.line.function.InvalidInputError, match="window"):
        f + g


def test_it_is_a_tensor_to_those_who_ask():
    f = line(*SQUARE)
    assert isinstance(f, Tensor) and torch.is_tensor(f) and isinstance(F.relu(f), Tensor)


def test_arrays_are_operands_as_for_tensors():
    f, array = line(2, 3), np.array([1.0, 2.0, 3.0])
    for operation in (operator.mul, operator.add, operator.sub, operator.truediv, operator.matmul):
        torch.testing.assert_close(operation(f, array)(0.3), operation(f(0.3), torch.from_numpy(array)))
    for operation in (operator.mul, operator.add, operator.sub):
        torch.testing.assert_close(operation(array, f)(0.3), operation(torch.from_numpy(array), f(0.3)))


def test_copies_and_pickles():
    f = line(2, 3)
    for twin in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f), copy.copy(f)):
        assert type(twin) is LineFunction and twin is not f
        assert torch.equal(twin.values, f.values) and torch.equal(twin.breakpoints, f.breakpoints)
    deep, shallow = copy.deepcopy(f), copy.copy(f)
    f += 1.0
    assert torch.equal(shallow.values, f.values) and torch.equal(deep.values + 1.0, f.values)  # as for tensors
    twins = copy.deepcopy([f, f])
    assert twins[0] is twins[1] is not f


def test_scripted_code_is_refused():
    @torch.jit.script
    def scripted(x: Tensor):
        return torch.relu(x)

    with pytest.raises(RuntimeError, match="TorchScript"):  # torch hides the cause; a Restriction names it
        scripted(line(2))


def test_a_function_keeps_its_numbers_whatever_their_owner_does():
    points, values = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.ones(2, 3)
    f = LineFunction(points, values)
    points.mul_(2.0), values.zero_()
    assert f.window == (0.0, 1.0) and (f.values == 1).all()
