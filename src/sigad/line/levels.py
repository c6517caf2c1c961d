"""Where a piecewise-linear function lies above a level."""

import math

import numpy as np
import torch
from torch import Tensor

from sigad.errors import InvalidInputError, NumericalError
from sigad.line import grid
from sigad.line.function import LineFunction


def roots(f: LineFunction, level: float | Tensor = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Where each number of f meets `level` (a number, or a tensor of f.shape).

    Returns (output, t), both (m,), sorted by output (an index into the flattened value) and then by t. On a piece that
    rests on the level, its two ends count. Zero slopes are no special case: no division by a slope takes place.
    """
    rows, threshold = _flat(f, level)
    _, output, t = grid.crossings(f.breakpoints, rows, threshold)
    point, touching = torch.nonzero(rows == threshold, as_tuple=True)
    # A crossing in a breakpoint on the level is found twice, at the same t.
    t, output = torch.cat([t, f.breakpoints[point]]), torch.cat([output, touching])
    pairs = torch.unique(torch.stack([output.double(), t], 1), dim=0).cpu().numpy()
    return pairs[:, 0].astype(np.int64), pairs[:, 1]


def above(f: LineFunction, level: float | Tensor = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The level sets {t : f(t) > level} of all numbers of f, within its window.

    Args:
        level: a number, or a tensor of f.shape.

    Returns:
        output: (m,) int64, index into the flattened value of f, in increasing order; an output that is never above is
            missing, one with several intervals repeats.
        intervals: (m, 2) float64, start and end of each interval, sorted and disjoint for each output.
    """
    rows, threshold = _flat(f, level)
    _, output, t = grid.crossings(f.breakpoints, rows, threshold)
    low, high = f.window
    first, last = (torch.nonzero(rows[end] > threshold)[:, 0] for end in (0, -1))
    output = torch.cat([output, first, last])
    t = torch.cat([t, torch.full_like(first, low, dtype=t.dtype), torch.full_like(last, high, dtype=t.dtype)])
    order = np.lexsort((t.cpu().numpy(), output.cpu().numpy()))
    # Sides alternate along an output, so its sorted ends pair up into intervals.
    intervals, output = t.cpu().numpy()[order].reshape(-1, 2), output.cpu().numpy()[order][::2]
    wide = intervals[:, 0] < intervals[:, 1]
    output, intervals = output[wide], intervals[wide]
    # Where f only touches the level from above, two intervals share an end: a point carries no weight, they are one.
    apart = (output[1:] != output[:-1]) | (intervals[1:, 0] != intervals[:-1, 1])
    first, last = np.append(True, apart), np.append(apart, True)
    return output[first[: len(output)]], np.stack(
        [intervals[first[: len(output)], 0], intervals[last[: len(output)], 1]], 1
    )


def agreement(f: LineFunction, level: float | Tensor, observed: Tensor) -> np.ndarray:
    """The set {t : (f(t) > level) == observed in every number}, as sorted disjoint intervals (m, 2).

    This is the selection event of a detector that marks the places where a score exceeds a threshold.

    Args:
        level: a number, or a tensor of f.shape.
        observed: boolean, of f.shape.

    Source: the region condition of Katsuoka et al., TMLR 2026, section on the selection event.
    """
    observed = torch.as_tensor(observed)
    if observed.shape != f.shape or observed.dtype != torch.bool:
        raise InvalidInputError(f"observed must be boolean, of shape {tuple(f.shape)}")
    rows, threshold = _flat(f, level)
    observed = observed.reshape(-1).to(rows.device)
    segment, output, t = grid.crossings(f.breakpoints, rows, threshold)
    flags = rows > threshold
    change = torch.where(flags[segment + 1, output] != observed[output], 1, -1).cpu().numpy()
    # Sweep: how many numbers disagree after each position, equal positions together.
    position, where = np.unique(t.cpu().numpy(), return_inverse=True)
    wrong = int((flags[0] != observed).sum()) + np.cumsum(np.bincount(where, change, len(position)))
    wrong = np.concatenate([[int((flags[0] != observed).sum())], np.rint(wrong).astype(np.int64)])
    ends = np.concatenate([[f.window[0]], position, [f.window[1]]])
    good = np.concatenate([[False], (wrong == 0) & (ends[1:] > ends[:-1]), [False]])
    jumps = np.flatnonzero(good[1:] != good[:-1])
    return ends[jumps].reshape(-1, 2)


def _flat(f: LineFunction, level: float | Tensor) -> tuple[Tensor, float | Tensor]:
    rows = f.values.reshape(len(f.values), f.shape.numel())
    if not torch.isfinite(rows).all():
        raise NumericalError("the function is not finite on all of its window")
    if isinstance(level, LineFunction):
        raise InvalidInputError("the level must not depend on the line: take the level set of the difference")
    if isinstance(level, np.ndarray):
        level = torch.as_tensor(level)
    if not isinstance(level, Tensor):
        if math.isnan(level):
            raise InvalidInputError("the level must not be NaN")
        return rows, float(level)
    if level.shape not in (f.shape, torch.Size([])):
        raise InvalidInputError(f"level must be a number or a tensor of shape {tuple(f.shape)}")
    if level.isnan().any():
        raise InvalidInputError("the level must not be NaN")
    return rows, level.to(rows).expand(f.shape).reshape(-1)
