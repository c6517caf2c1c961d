"""Affine operations: they commute with linear interpolation, so they act on the values alone.

To add one: put its name in the list it belongs to, and a sample call in tests/line/test_rules.py (which fails for a
rule without one). What is affine in all its line-dependent arguments *together* goes to LINEAR or VIEWS; what is a
product of two arguments to FACTORS; what runs on a batch (N, C, *spatial) to BATCHED.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sigad.line.blank import Blank
from sigad.line.fast.batch import over_batch
from sigad.line.fast.contraction import convolution
from sigad.line.fast.deferred import Deferred, convolve, normalize, per_channel, worth_waiting
from sigad.line.function import DTYPES, LineFunction, align, constant, func_name, named, pointwise, rule, unsupported
from sigad.line.inplace import outermost, overwrite, readable, share, writable

VIEWS = (
    "view reshape flatten unflatten squeeze unsqueeze permute transpose t swapaxes swapdims movedim moveaxis expand "
    "expand_as broadcast_to view_as reshape_as contiguous narrow select split split_with_sizes chunk tensor_split "
    "hsplit vsplit dsplit unbind diagonal detach ravel"
)
MAYBE_VIEWS = "reshape flatten reshape_as contiguous ravel channel_shuffle einsum"
"""These are views or copies in torch, depending on the layout in memory and on their arguments."""
LINEAR = (
    "add sub subtract rsub neg negative clone flip fliplr flipud roll rot90 repeat tile index_select gather "
    "take_along_dim tril triu masked_fill where mean sum cumsum diff stack hstack vstack dstack repeat_interleave "
    "pixel_shuffle pixel_unshuffle trace index_add index_copy index_fill scatter_add select_scatter slice_scatter "
    "diagonal_scatter"
)
FACTORS = {  # names: the position, and the names, of the two arguments of which only one may depend on the line
    "mul multiply matmul mm bmm mv dot inner outer": ((0, "input"), (1, "other", "mat2", "vec", "vec2", "tensor")),
    "linear": ((0, "input"), (1, "weight")),
    "addmm baddbmm addmv": ((1, "mat1", "batch1", "mat"), (2, "mat2", "batch2", "vec")),
    "addcmul": ((1, "tensor1"), (2, "tensor2")),
    "tensordot": ((0, "a"), (1, "b")),
}
BATCHED = {  # name: number of spatial axes
    **{f"{name}{n}d": n for n in (1, 2, 3) for name in ("conv", "conv_transpose", "avg_pool", "adaptive_avg_pool")},
    "unfold": 2,
    "fold": 1,
}
QUERIES = (
    "size dim ndimension numel nelement is_floating_point is_complex is_contiguous get_device element_size "
    "zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full new_tensor"
)
PROPERTIES = (
    "shape dtype device ndim layout is_cuda is_cpu is_sparse is_mkldnn is_quantized is_meta is_nested requires_grad"
)


def depends(value) -> bool:
    """Whether an argument (or anything in a list of arguments) is a function of the line."""
    return isinstance(value, LineFunction) or (isinstance(value, (list, tuple)) and any(map(depends, value)))


def only_first(func, args: tuple, kwargs: dict) -> tuple[LineFunction, tuple]:
    """The tensor that an operation acts on, and its other arguments, none of which may depend on the line."""
    f, rest = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
    if not isinstance(f, LineFunction) or depends(rest) or depends(list(kwargs.values())):
        raise unsupported(func, "only the tensor it acts on may depend on the line, not its parameters")
    return f, rest


INSTEAD: dict[str, Callable] = {
    # The layout in memory is ours to choose, so what is a view in torch may need a copy here.
    "view": torch.Tensor.reshape,
    "view_as": torch.Tensor.reshape_as,
    # An alias, which vmap does not know.
    "moveaxis": torch.movedim,
}
"""What is done in place of some views."""


def getters(names: str) -> list[Callable]:
    """What torch hands over when an attribute of a tensor is read."""
    return [getattr(torch.Tensor, name).__get__ for name in names.split()]


@rule(*named(VIEWS), torch.Tensor.unfold, *getters("T mT"), torch.Tensor.__getitem__)
@outermost
def view(func, args, kwargs):
    args = (args[0] if args else kwargs.pop("input"), *args[1:])
    f, name = args[0], func_name(func)
    if depends(args[1:]):  # only its shape is asked for, as in expand_as(other)
        if name == "__getitem__":
            raise unsupported(func, "the index depends on the line")
        args = (f, *(torch.empty(a.shape, device=f.device) if depends(a) else a for a in args[1:]))
        if not depends(f):
            return func(*args, **kwargs)
    if name == "view" and (kwargs or isinstance(args[1], torch.dtype)):
        raise unsupported(func, "reinterprets the memory")
    act = INSTEAD.get(name, func)
    result = pointwise(act, args, kwargs)
    if name == "__getitem__" and not _slices(args[1]):
        return result
    several = isinstance(result, (tuple, list))
    for i, part in enumerate(result if several else [result]):

        def step(place: Tensor, i=i) -> Tensor:
            made = act(place, *args[1:], **kwargs)
            return made[i] if several else made

        repeats = part.shape.numel() > f.shape.numel() or name == "unfold"
        share(f, part, None if name in MAYBE_VIEWS.split() else step, repeats)
    return result


def _slices(index) -> bool:
    """Whether an index makes a view, as numbers and slices do; lists, masks and tensors of indices make a copy."""
    if isinstance(index, tuple):
        return all(map(_slices, index))
    if isinstance(index, (Tensor, np.ndarray)):
        return index.ndim == 0 and torch.as_tensor(index).dtype not in (torch.bool, torch.uint8)
    return index is None or index is Ellipsis or isinstance(index, slice) or _is_integer(index)


def _is_integer(index) -> bool:
    return hasattr(index, "__index__") and not isinstance(index, (bool, np.bool_))


@rule(*named("positive"))
def itself(func, args, kwargs):
    return args[0] if args else kwargs["input"]


@rule(*named("channel_shuffle"))
@outermost
def channel_shuffle(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    return share(f, pointwise(func, (f, *rest), kwargs), None)


@rule(*named(LINEAR))
@outermost
def linear(func, args, kwargs):
    if func in SUMS and len(args) == 2 and not kwargs and not all(map(depends, args)):
        f, shift = args if depends(args[0]) else args[::-1]
        if per_channel(f, shift):
            return Deferred([f], shift)
    return pointwise(func, args, kwargs)


SUMS = {torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__}


def _register_product(names: str, factors) -> None:
    @rule(*named(names))
    @outermost
    def product(func, args, kwargs):
        pair = [args[at] if at < len(args) else next(kwargs[k] for k in keys if k in kwargs) for at, *keys in factors]
        if all(depends(factor) for factor in pair):
            raise unsupported(func, "the product of two tensors that both depend on the line is not linear")
        if func is F.linear and depends(args[0]) and not depends(args[1:]) and not kwargs:
            return args[0].derive(F.linear(args[0].values, *(constant(c, args[0]) for c in args[1:])))  # needs no vmap
        return pointwise(func, args, kwargs)


for _names, _factors in FACTORS.items():
    _register_product(_names, _factors)


@rule(torch.einsum)
def einsum(func, args, kwargs):
    operands = args[1] if isinstance(args[1], (list, tuple)) else args[1:]
    if sum(depends(operand) for operand in operands) > 1:
        raise unsupported(func, "the product of two tensors that both depend on the line is not linear")
    result = pointwise(func, (args[0], *operands), kwargs)
    return share(next(operand for operand in operands if depends(operand)), result, None)


@rule(*named("div divide true_divide truediv", inplace=True))
@outermost
def division(func, args, kwargs):
    if func_name(func) in ("__rdiv__", "__rtruediv__") or depends(args[1:]) or depends(list(kwargs.values())):
        raise unsupported(func, "the divisor depends on the line")
    if kwargs.get("rounding_mode") is not None:
        raise unsupported(func, "rounding jumps")
    return pointwise(func, args, kwargs)


@rule(torch.cat, torch.concat, torch.concatenate)
@outermost
def cat(func, args, kwargs):
    tensors = args[0] if args else kwargs.pop("tensors")
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    ranks = {t.ndim for t in tensors}
    channels = len(ranks) == 1 and min(ranks) > 2 and dim % min(ranks) == 1 and all(t.shape[0] == 1 for t in tensors)
    if channels and all(map(depends, tensors)):
        return Deferred(tensors)
    return pointwise(torch.cat, (list(tensors), dim), {})


@rule(*[func for name in BATCHED for func in named(name) if func is not torch.Tensor.unfold])
@outermost
def batched(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    if func in (F.conv1d, F.conv2d, F.conv3d):
        given = dict(zip(("weight", "bias", "stride", "padding", "dilation", "groups"), rest, strict=False)) | kwargs
        if given.pop("groups", 1) == 1:
            weight, bias = given.pop("weight"), given.pop("bias", None)
            if isinstance(f, Deferred) and worth_waiting(f, weight):
                return convolve(func, f, weight, bias, given)
            return convolution(func, f, weight, bias, given)
    return f.derive(over_batch(func, f, rest, kwargs, BATCHED[func_name(func)]))


@rule(F.interpolate, F.upsample, F.upsample_nearest, F.upsample_bilinear)
def interpolate(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    if f.ndim > 2 and f.shape[0] == 1:
        names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
        given = dict(zip(names, rest, strict=False)) | kwargs
        return Deferred([f], None, functools.partial(func, **given))
    return f.derive(over_batch(func, f, rest, kwargs, f.ndim - 2))


@rule(F.pad)
def pad(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    if len(rest[0] if rest else kwargs["pad"]) // 2 < f.ndim:
        return f.derive(over_batch(func, f, rest, kwargs, f.ndim - 2))
    return pointwise(func, (f, *rest), kwargs)


@rule(F.batch_norm)
def batch_norm(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, rest, strict=False)) | kwargs
    if given.get("training", False) or given["running_mean"] is None:
        raise unsupported(func, "in training mode the statistics depend on the line; call module.eval() first")
    weight, bias = (neutral if given.get(n) is None else given[n] for n, neutral in (("weight", 1.0), ("bias", 0.0)))
    scale = (given["running_var"] + given.get("eps", 1e-5)).rsqrt() * weight
    return normalize(f, scale, bias - given["running_mean"] * scale)


@rule(*named("dropout alpha_dropout feature_alpha_dropout feature_dropout dropout1d dropout2d dropout3d"))
@outermost
def dropout(func, args, kwargs):
    given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
    if given.get("training", given.get("train", True)):
        raise unsupported(func, "in training mode it is random; call module.eval() first")
    return given["input"]


@rule(torch.Tensor.to, torch.Tensor.type_as, torch.Tensor.float, torch.Tensor.double, torch.Tensor.type)
def convert(func, args, kwargs):
    f, *rest = args[0], *(torch.empty_like(a.values[0]) if depends(a) else a for a in args[1:])
    if not isinstance(f, LineFunction):
        return func(f, *rest, **kwargs)
    value = func(torch.empty([1] * f.ndim, dtype=f.dtype, device=f.device), *rest, **kwargs)
    if not isinstance(value, Tensor) or value.dtype not in (torch.float32, torch.float64):
        raise unsupported(func, "only float32 and float64 are exact enough")
    if value.device != f.device:
        raise unsupported(func, "moves the computation to another device; choose it by restrict(device=...)")
    if value.dtype != f.dtype:
        return f.derive(f.values.to(value.dtype))
    if kwargs.get("copy") or (func is torch.Tensor.to and True in [a for a in rest if isinstance(a, bool)][1:]):
        return f.derive(f.values)
    return share(f, f.derive(f.values), None) if "memory_format" in kwargs else f


@rule(*named("lerp"))
@outermost
def lerp(func, args, kwargs):
    given = dict(zip(("input", "end", "weight"), args, strict=False)) | kwargs
    if depends(given["weight"]) and (depends(given["input"]) or depends(given["end"])):
        raise unsupported(func, "the product of two tensors that both depend on the line is not linear")
    return pointwise(torch.lerp, (given["input"], given["end"], given["weight"]), {})


@rule(*named("addcdiv"))
@outermost
def addcdiv(func, args, kwargs):
    if depends(args[2:]) or depends(list(kwargs.values())):
        raise unsupported(func, "the divisor depends on the line")
    return pointwise(func, args, kwargs)


@rule(*named("scatter"))
@outermost
def scatter(func, args, kwargs):
    if kwargs.get("reduce") is not None:
        raise unsupported(func, "only without reduce; there is scatter_add")
    return pointwise(func, args, kwargs)


@rule(F.grid_sample, F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)
def resample(func, args, kwargs):
    f, rest = only_first(func, args, kwargs)
    return pointwise(func, (f, *rest), kwargs)


@rule(torch.Tensor.__setitem__)
def set_item(func, args, kwargs):
    target, index, value = args
    writable(func, target)
    if depends(index):
        raise unsupported(func, "the index depends on the line")
    readable(func, target, value, lambda place: place[index])
    numbers = target.shape.numel()
    place = torch.arange(numbers, device=target.device).reshape(target.shape)[index]
    old, *new = align([target, value] if depends(value) else [target])
    new = new[0].values if new else torch.as_tensor(value, dtype=target.dtype, device=target.device)[None]
    while new.ndim - 1 > place.ndim and new.shape[1] == 1:
        new = new.squeeze(1)
    new = new.reshape(len(new), *[1] * (place.ndim - new.ndim + 1), *new.shape[1:]).expand(-1, *place.shape)
    values = old.values.reshape(len(old.values), numbers).clone()
    values[:, place.flatten()] = new.reshape(len(new), -1).to(values.dtype)
    overwrite(func, target, old.derive(values.reshape(old.values.shape)))


@rule(torch.Tensor.copy_, torch.Tensor.fill_, torch.fill_, torch.Tensor.zero_, torch.zero_)
def fill(func, args, kwargs):
    target = args[0] if args else kwargs["input"]
    writable(func, target)
    given = [*args[1:], *(kwargs[name] for name in ("src", "other", "value") if name in kwargs), 0.0]
    source = given[0]
    readable(func, target, source, lambda place: place)
    if depends(source):
        return overwrite(func, target, pointwise(torch.broadcast_to, (source, target.shape), {}))
    number = torch.as_tensor(source, dtype=target.dtype, device=target.device).clone()  # who holds it may change it
    return overwrite(func, target, target.derive(number.expand(len(target.breakpoints), *target.shape)))


@rule(*named(QUERIES, inplace=False), torch.Tensor.__len__)
@rule(*getters(PROPERTIES))
def query(func, args, kwargs):
    """What does not depend on t: a tensor of the same shape answers. The values stay as they are, or uncomputed."""
    (f, *_) = functions = [a for a in (*args, *kwargs.values()) if depends(a)]
    stand_in = {id(a): torch.empty((), dtype=a.dtype, device=a.device).expand(a.shape) for a in functions}
    result = func(*[stand_in.get(id(a), a) for a in args], **{k: stand_in.get(id(v), v) for k, v in kwargs.items()})
    like = isinstance(result, Tensor) and result.dtype in DTYPES and result.device == f.device
    return Blank.of_tensor(result, f.windows) if like else result


@rule(torch.Tensor.__iter__)
def iterate(func, args, kwargs):
    return iter(args[0].unbind(0))
