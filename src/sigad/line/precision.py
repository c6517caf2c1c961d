"""Single precision that is single precision: no TensorFloat-32, no bfloat16, whatever torch was told."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Within the block, float32 operations on the device round to float32.

    By default, convolutions on recent GPUs round their inputs to 10 bits, which moves end points by a thousandth and
    loses short intervals. Automatic mixed precision around the block is off within it.
    """
    kinds = (
        torch.backends.cudnn.conv,
        torch.backends.cuda.matmul,
        torch.backends.mkldnn.conv,
        torch.backends.mkldnn.matmul,
    )
    before = [kind.fp32_precision for kind in kinds]
    mixed = torch.amp.is_autocast_available(device.type)
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False) if mixed else contextlib.nullcontext():
            yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
