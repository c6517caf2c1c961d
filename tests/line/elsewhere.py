"""A device that is not there, for tests of device handling on machines without an accelerator.

Its tensors are wrappers around tensors of the host, which do the arithmetic. They refuse what a real device refuses: an
operation on tensors of two devices (numbers, that is tensors without axes, are free). Transfers are written down.
torch calls the device "meta", the one name that works in every build; no meta tensor is involved.
"""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("meta")


class Away(Tensor):
    """A tensor on the device; `inner` is its stand-in on the host."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor):
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=ELSEWHERE,
        )  # fmt: skip

    def __init__(self, inner: Tensor):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


_TRANSFERS: list[tuple[str, tuple[int, ...]]] = []


def _run(func, args, kwargs):
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    away = [t for t in tensors if isinstance(t, Away)]
    device = torch.device(kwargs.get("device") or (ELSEWHERE if away else "cpu"))
    host = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items()}
    if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
        target = device if func is torch.ops.aten._to_copy.default else args[0].device
        if target.type != tensors[-1].device.type:
            _TRANSFERS.append((f"to {target.type}", tuple(tensors[-1].shape)))
        device = target
    elif func is torch.ops.aten._local_scalar_dense.default and away:
        _TRANSFERS.append(("number", ()))
    elif away and any(t.ndim for t in tensors if not isinstance(t, Away)):
        raise RuntimeError(f"{func}: tensors on two devices")
    result = func(*tree_map(_inner, args), **tree_map(_inner, host))
    if device.type != ELSEWHERE.type:
        return result
    result = tree_map(lambda leaf: Away(leaf) if isinstance(leaf, Tensor) else leaf, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if away else result


def _inner(leaf):
    return leaf.inner if isinstance(leaf, Away) else leaf


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextlib.contextmanager
def elsewhere() -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """Within the block the device exists. Yields the transfers so far: ("to <device>" or "number", shape)."""
    _TRANSFERS.clear()
    with pytest.MonkeyPatch.context() as patch, _Mode():
        for name in ("tensor", "as_tensor"):  # torch makes these without asking the mode
            make = getattr(torch, name)

            def made(data, *args, make=make, device=None, **kwargs):
                result = make(data, *args, **kwargs)
                return result if device is None else result.to(device)

            patch.setattr(torch, name, made)
        # Modules exchange whole parameters: to exchange their data would leave `inner` behind.
        patch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
        yield _TRANSFERS


def fetched(tensor: Tensor) -> Tensor:
    """The numbers of a tensor on the device, fetched to the host."""
    assert isinstance(tensor, Away)
    return tensor.inner
