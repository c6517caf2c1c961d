"""Single precision that is single precision: no TensorFloat-32, no bfloat16, whatever torch was told."""

import contextlib
import threading
from collections.abc import Generator
from operator import attrgetter

import torch

_KINDS = attrgetter("cudnn.conv", "cuda.matmul", "mkldnn.conv", "mkldnn.matmul")
"""The settings among torch.backends, whose modules are replaced by objects when they are imported."""

_LOCK = threading.Lock()
_WITHIN: list[list[str]] = []
"""What the settings were before, once for each thread that is within the block: torch keeps them for the process."""


@contextlib.contextmanager
def full_precision(device: torch.device) -> Generator[None]:
    """Within the block, float32 operations on the device round to float32.

    By default, convolutions on recent GPUs round their inputs to 10 bits, which moves end points by a thousandth and
    loses short intervals. Automatic mixed precision around the block is off within it. The last thread to leave puts
    the settings back.
    """
    kinds = _KINDS(torch.backends)
    mixed = torch.amp.is_autocast_available(device.type)
    with _LOCK:
        _WITHIN.append(_WITHIN[0] if _WITHIN else [kind.fp32_precision for kind in kinds])
        for kind in kinds:
            kind.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False) if mixed else contextlib.nullcontext():
            yield
    finally:
        with _LOCK:
            before = _WITHIN.pop()
            if not _WITHIN:
                for kind, precision in zip(kinds, before, strict=True):
                    kind.fp32_precision = precision
