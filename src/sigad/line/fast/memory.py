"""Keep a propagation within a memory budget: count the live line functions, and stop before a tensor too many."""

import contextlib
import ctypes
import functools
import itertools
import mmap
import sys
import threading
import weakref
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

_THREAD = threading.local()
"""Holds the meter in force: each thread has its own."""

WORKSPACE = 4
"""Tensors of the size of a layer's refined input that a rule may hold at once, beyond the live functions."""


class WindowTooLong(Exception):
    """So many points of the window would need so many bytes, more than the budget: a shorter one has to do."""


class Meter:
    """Bytes of the line functions alive, against a budget."""

    def __init__(self, budget: int):
        self.budget, self.peak, self.functions = budget, 0, weakref.WeakSet()
        self.kept = {}

    def live(self) -> int:
        storages = {s.data_ptr(): s.nbytes() for s in (f.values.untyped_storage() for f in self.functions)}
        kept = itertools.chain.from_iterable(self.kept.values())
        return sum(storages.values()) + sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def reserve(self, points: int, row_bytes: int) -> None:
        needed = self.live() + WORKSPACE * points * row_bytes
        if needed > self.budget:
            raise WindowTooLong(points, needed)
        self.peak = max(self.peak, needed)


@contextlib.contextmanager
def metered(budget: int):
    """Within the block, breakpoints that would exceed the budget (bytes) raise WindowTooLong. Yields the meter."""
    keep_freed()
    meter, outer = Meter(budget), _meter()
    _THREAD.meter = meter
    try:
        yield meter
    finally:
        _THREAD.meter = outer


def _meter() -> Meter | None:
    return getattr(_THREAD, "meter", None)


def resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@functools.cache
def keep_freed() -> None:
    """Have the C library keep freed memory for the next tensors, in the whole process.

    It hands blocks above 32 MiB back at once, and the system clears each page that is asked for again: for the tensors
    of a network that takes as long as the arithmetic on them."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_MMAP_MAX, 0)
        _LIBC.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back() -> None:
    """Hand freed memory back to the system. What is kept comes in pieces that fit the next tensors less and less:
    without this a process that runs many windows of a large network grows to several times what is alive at once."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1  # of malloc.h; what does not know mallopt, or these, goes on as before


def kept(purpose: Hashable, source: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """What `make` makes out of the parameter `source`, made once in a propagation: its passes share the parameter."""
    meter = _meter()
    if meter is None:
        return make()
    key = (purpose, source.data_ptr(), source.shape, source.stride())
    # By the numbers: a parameter that its owner changes by way of `.data` tells nobody.
    if key not in meter.kept or not torch.equal(meter.kept[key][0], source):
        meter.kept[key] = source.clone(), make()
    return meter.kept[key][1]


def account(function) -> None:
    """Count a new line function."""
    meter = _meter()
    if meter is not None:
        meter.functions.add(function)


def reserve(points: int, row_bytes: int) -> None:
    """Ask for room for a tensor of so many points."""
    meter = _meter()
    if meter is not None:
        meter.reserve(points, row_bytes)
