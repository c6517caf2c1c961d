"""Truncation regions of the k-nearest-neighbour test, in closed form: no search along the line.

Everything is expressed in r = z/T, so that r = 1 is what was observed. With lam(k') = (k'/k)^(1/D), "a_k beats a_k'"
means d_(k') < lam(k') d_j, a count of instances that are closer than lam(k') d_j. docs/mathematics.md has the
derivation.
"""

import numpy as np
from numpy.typing import NDArray

from sigad.inference import region as rg
from sigad.inference.ties import EPS, require_interior
from sigad.knn.crossings import Crossings, solve_linear
from sigad.knn.detection import Detections, in_range, norm, penalty, require_apart


def selection_region(detections: Detections, *, condition_on_k: bool = True) -> NDArray[np.float64]:
    """Where the same neighbour is selected and the score exceeds the threshold.

    Parameters
    ----------
    detections : B selected problems (``detections.selected`` must hold for all).
    condition_on_k : condition on the selected k as well (the paper's choice); otherwise the union over all candidates
        of the r at which j is the k-th neighbour for the k that is then selected.

    Returns
    -------
    (B, m, 2) regions of r = z/T >= 0, padded with [inf, inf]; each contains r = 1.

    Raises
    ------
    NumericalError : r = 1 is an end point of a region, or its only point: distances or scores that are equal to
        rounding (:mod:`sigad.inference.ties`); or a test instance is one of its own training instances.
    """
    require_apart(detections)
    told = resolution(detections, detections.f_train[np.arange(len(detections)), detections.index])
    detections = in_range(detections)
    lines = Crossings.of(detections)
    if condition_on_k:
        region = _region_for(lines, detections, detections.k)
    else:
        everywhere = [_region_for(lines, detections, np.full(len(detections), k)) for k in detections.candidates]
        region = rg.union(*everywhere)
    return require_interior(region, 1.0, told)


def _region_for(lines: Crossings, detections: Detections, k: NDArray) -> NDArray:
    """The r at which j is the k-th neighbour, k (B,) has the largest score, and that score exceeds the threshold."""
    dimension = detections.f_test.shape[-1]
    low = np.exp(detections.threshold + penalty(k, dimension)) / lines.length
    high = np.full(len(k), np.inf)
    extra = []
    for other in detections.candidates:
        lam = np.exp(penalty(other, dimension) - penalty(k, dimension))
        small = lam <= 0.5
        if not small.all():
            before, after = _order_statistics(lines.single(np.where(small, 1.0, lam)), other)
            # For k itself: j has k - 1 closer instances, no more. For a larger candidate j is among the closer ones.
            low = np.maximum(low, np.where(small, 0.0, np.where(other < k, after, before)))
            high = np.where(other == k, after, high)
        if small.any():
            some = np.nonzero(small)[0]
            closer = rg.covered_at_least(lines[some].interval(lam[some]), other)
            extra.append((some, closer))
    region = np.stack([low, high], axis=-1)[:, None, :]
    for some, closer in extra:
        region = _intersect_some(region, some, closer)
    return region


def _order_statistics(rho: NDArray, k: int) -> tuple[NDArray, NDArray]:
    """The (k-1)-th and the k-th smallest of rho (B, n) in each row, counted from 1; the 0-th is 0."""
    kth = [k - 1] if k == 1 else [k - 2, k - 1]
    rho = np.partition(rho, kth, axis=-1)
    return (np.zeros(len(rho)) if k == 1 else rho[:, k - 2]), rho[:, k - 1]


def _intersect_some(region: NDArray, some: NDArray, other: NDArray) -> NDArray:
    """Intersect the regions (B, m, 2) numbered ``some`` with ``other`` (len(some), m', 2)."""
    part = rg.intersection(region[some], other)
    result = np.full((len(region), max(region.shape[1], part.shape[1]), 2), np.inf)
    result[:, : region.shape[1]] = region
    result[some] = np.inf
    result[some, : part.shape[1]] = part
    return result


def order_region(detections: Detections) -> NDArray[np.float64]:
    """The over-conditioned region of w/o-pp: the single interval of r around 1 on which, besides the selection, the
    selected k and the order of the nearest instances stay what they are, as many instances as the largest candidate.

    Every condition is then linear or quadratic in r (l2), or linear on the linear piece of all distances (l1, l_inf),
    which is fixed as well.

    Returns
    -------
    (B, 1, 2)

    Raises
    ------
    NumericalError : as :func:`selection_region`; also where others than j are equally close.
    """
    rows = np.arange(len(detections))
    told = resolution(detections, detections.f_train[rows, detections.index])
    detections = in_range(detections)
    lines = Crossings.of(detections)
    alpha, beta, low, high = lines.linear_forms()
    # The order of the others. Where j stands among them is part of the selection already.
    at_one = alpha + beta
    at_one[rows, lines.index] = np.inf
    order = np.argsort(at_one, axis=-1, kind="stable")
    m = min(detections.candidates[-1] - 1, order.shape[1] - 1)  # j is one of the nearest instances
    chain, outside = order[:, :m], order[:, m:-1]
    pairs = [(chain[:, :-1], chain[:, 1:]), (chain[:, -1:], outside)]
    for first, second in pairs:
        if first.shape[1] == 0 or second.shape[1] == 0:
            continue
        row = rows[:, None]
        lower, upper = solve_linear(alpha[row, first] - alpha[row, second], beta[row, first] - beta[row, second])
        low, high = np.maximum(low, lower.max(axis=-1)), np.minimum(high, upper.min(axis=-1))
    chained = require_interior(np.stack([low, high], axis=-1)[:, None, :], 1.0, told)
    region = rg.intersection(selection_region(detections), chained)
    around = (region[..., 0] <= 1) & (1 <= region[..., 1])
    return np.take_along_axis(region, around.argmax(axis=-1)[:, None, None], axis=-2)


def resolution(detections: Detections, neighbour: NDArray) -> NDArray[np.float64]:
    """Changes of r, (B,), that rounding hides: of the features of the test instance and of those that it moves away
    from, (B, D), over the distance of the two."""
    size = lambda x: norm(x, detections.metric)  # noqa: E731
    apart = size(detections.f_test - neighbour)
    # Features of the same value do not move along the line.
    return EPS * (size(detections.f_test) + size(neighbour)) / np.where(apart > 0, apart, np.inf)
