"""Breakpoints: interpolation between them, and where new ones are needed.

Everything here works on a matrix `rows` (K, F): the F numbers of an activation, in memory order, at K breakpoints.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def as_rows(values: Tensor) -> Tensor:
    """View values (K, *shape) as a matrix (K, F) in memory order, in any layout; copies only what is not dense."""
    size = values[0].numel()
    if not _is_dense(values):
        values = values.contiguous()
    return values.as_strided((len(values), size), (size, 1))


def like_rows(rows: Tensor, values: Tensor) -> Tensor:
    """The inverse of :func:`as_rows`: give `rows` (K', F) the trailing shape and the layout of `values` (K, *shape)."""
    inner = values.stride()[1:] if _is_dense(values) else torch.empty(values.shape[1:], device="meta").stride()
    return rows.as_strided((len(rows), *values.shape[1:]), (rows.shape[1], *inner))


def _is_dense(values: Tensor) -> bool:
    expected = 1
    for stride, size in sorted(zip(values.stride()[1:], values.shape[1:], strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return values.stride(0) == expected


def interpolate(breakpoints: Tensor, values: Tensor, points: Tensor) -> Tensor:
    """Values (K, *shape) at `breakpoints` (K,), read at `points` (m,) within the same window: (m, *shape).

    An embedding bag is exactly this (a weighted sum of a few rows of a table), and runs at the speed of a copy: points
    that are breakpoints already are bags of one row, the others mix two.
    """
    left = (torch.searchsorted(breakpoints, points, right=True) - 1).clamp_(0, len(breakpoints) - 2)
    start = breakpoints[left]
    weight = (points - start) / (breakpoints[left + 1] - start)
    pairs = torch.stack([left, left + 1], 1)
    weights = torch.stack([1 - weight, weight], 1)
    used = weights != 0
    count = used.sum(1)
    rows = as_rows(values)
    result = F.embedding_bag(
        pairs[used],
        rows,
        count.cumsum(0) - count,
        mode="sum",
        per_sample_weights=weights[used].to(rows.dtype),
    )
    return like_rows(result, values)


def merge(breakpoints: Tensor, points: Tensor) -> Tensor:
    """The sorted union of breakpoints and points; `breakpoints` itself when nothing is new.

    Points are dropped only where they are equal: pieces of width 1e-8 are real, and no tolerance can tell.
    """
    if not len(points):
        return breakpoints
    union = torch.unique(torch.cat([breakpoints, points]))
    return breakpoints if len(union) == len(breakpoints) else union


def inside(windows: Tensor, points: Tensor) -> Tensor:
    """Which of the points lie in the sorted, disjoint windows (m, 2). Where a window starts does not count."""
    return torch.searchsorted(windows.flatten(), points) % 2 == 1


def changes(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Segments and columns (both (m,)) where the boolean matrix `flags` (K, F) differs from one row to the next."""
    if flags.shape[1] % 8 or not flags.numel():
        segment, column = torch.nonzero(flags[1:] ^ flags[:-1], as_tuple=True)
        return segment, column
    packed = flags.contiguous().view(torch.int64)  # eight flags at a time: changes are rare
    segment, word = _nonzero(packed[1:] ^ packed[:-1])
    if not len(segment):
        return segment, word
    byte = torch.arange(8, device=flags.device)
    column = 8 * word[:, None] + byte
    hit, byte = torch.nonzero(flags[segment[:, None], column] ^ flags[segment[:, None] + 1, column], as_tuple=True)
    return segment[hit], column[hit, byte]


def crossings(breakpoints: Tensor, rows: Tensor, level: float | Tensor = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Where the columns of `rows` (K, F) pass from above `level` to not above, or back: (segment, column, position).

    The level is a number or a row (F,). Positions (m,) are float64 whatever the dtype of the rows, each inside its
    segment (ends included), not sorted. A column that rests on the level passes it where it leaves upwards.
    """
    segment, column = changes(_greater(rows, level))
    if not len(segment):
        return segment, column, breakpoints[:0]
    threshold = level[column].double() if isinstance(level, Tensor) and level.ndim else level
    start = rows[segment, column].double() - threshold
    stop = rows[segment + 1, column].double() - threshold
    return segment, column, between(breakpoints, segment, start / (start - stop))


def _greater(rows: Tensor, level: float | Tensor) -> Tensor:
    """rows > level. On a CPU by numpy, whose comparison is vectorised where torch's is not: six times as fast."""
    if rows.device.type != "cpu":
        return rows > level
    return torch.from_numpy(np.greater(rows.numpy(), level.numpy() if isinstance(level, Tensor) else level))


def _nonzero(words: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the numbers of a matrix that are not zero; on a CPU by numpy, for the same reason."""
    if words.device.type != "cpu":
        row, column = torch.nonzero(words, as_tuple=True)
        return row, column
    found = torch.from_numpy(np.flatnonzero(words.numpy() != 0))
    return found // words.shape[1], found % words.shape[1]


def between(breakpoints: Tensor, segment: Tensor, fraction: Tensor) -> Tensor:
    """The position at `fraction` (in [0, 1]) of each segment, never outside it for rounding."""
    start, stop = breakpoints[segment], breakpoints[segment + 1]
    return torch.minimum(start + fraction * (stop - start), stop)


def envelope_kinks(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Kinks of the maximum of n lines. `left` and `right` (P, n) are their values at both ends of P segments.

    Returns (problem, fraction): the index of the segment among the P and the position of the kink in [0, 1). A line
    that takes no part has -inf at both ends. The envelope is convex: walk it from the left, at each step to the first
    line of greater slope that crosses the current one (gift wrapping), at most n - 1 steps, whatever ties there are.
    """
    left, right = left.double(), right.double()
    slope = torch.where(left == -torch.inf, 0.0, right - left)
    highest = left == left.amax(1, keepdim=True)
    current = torch.where(highest, slope, -torch.inf).argmax(1, keepdim=True)
    problem = torch.arange(len(left), device=left.device)
    kinks = []
    for _ in range(left.shape[1] - 1):
        steeper = slope - slope.gather(1, current)
        meet = torch.where(steeper > 0, (left.gather(1, current) - left) / steeper, torch.inf)
        first = meet.amin(1, keepdim=True)
        current = torch.where(meet == first, slope, -torch.inf).argmax(1, keepdim=True)
        alive = torch.nonzero(first[:, 0] < 1)[:, 0]
        if not len(alive):
            break
        left, slope, current, problem = left[alive], slope[alive], current[alive], problem[alive]
        kinks.append((problem, first[alive, 0].clamp_min(0)))
    if not kinks:
        return problem[:0], left.new_empty(0)
    return torch.cat([k[0] for k in kinks]), torch.cat([k[1] for k in kinks])
