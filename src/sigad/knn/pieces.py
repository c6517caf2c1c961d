"""Where on the line is the same neighbour selected, when the features are piecewise linear along it?

A network takes the two moving instances to features that are linear between breakpoints z_0 < ... < z_K. On a piece,
with u in [0, 1] from its start to its end and D_i, D_j the change of f(x(z)) and of f(x(z)) - f(x_j(z)) over it,

    l2:       d_i^2 = d_i(0)^2 + (d_i(1)^2 - d_i(0)^2 - |D_i|^2) u + |D_i|^2 u^2,   and likewise d_j with D_j,
    l1, linf: d_i and d_j are convex and piecewise linear in u.

D_i is the same for all training instances i, as only the test instance moves. So for l2 distances at the breakpoints
(one matrix product) and two numbers per piece are all there is to know. As in the closed form, "a_k beats a_k'" counts
the instances closer than lam d_j with lam = (k'/k)^(1/D): a number that changes at the roots of
d_i^2 - lam^2 d_j^2, at most two per piece and instance. docs/mathematics.md, section 7.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigad.errors import NumericalError
from sigad.inference import region as rg
from sigad.inference.hypothesis import LARGEST, SMALLEST
from sigad.inference.ties import EPS
from sigad.knn.detection import Metric, norm, penalty, unit_of

# Numbers per block of the refinement for l1 and linf.
_BLOCK = 1 << 22
_MAX_SPLITS = 200
# Distances that differ by less, in units of the rounding of features, are equal: networks do give equal features to
# different instances (where all ReLUs of a channel are off), on whole intervals of z.
ROUNDING = 64
_FAR = 1e60


@dataclass(frozen=True)
class Pieces:
    """Features of the two moving instances on consecutive linear pieces.

    ``z`` (K + 1,) float64, strictly increasing; ``test`` and ``neighbour`` (K + 1, D) the features of x(z) and x_j(z)
    there, linear in between. ``start``: the size of the data at z = 0, in units of their change with z; what rounding
    of the data amounts to on the line, so that breakpoints are known to (start + |z|) times the precision.
    """

    z: NDArray[np.float64]
    test: NDArray
    neighbour: NDArray
    start: float = 0.0


@dataclass(frozen=True)
class Event:
    """What the detector selected, and against whom.

    ``train`` (n - 1, D) the features of all training instances but the neighbour, which do not move; ``before``
    (n - 1,) whether they stand before the neighbour in the training set, so that they win ties; ``candidates``, ``k``,
    ``threshold`` and ``metric`` as in :class:`~sigad.knn.detection.Detections`, of one problem.
    """

    train: NDArray[np.float64]
    before: NDArray[np.bool_]
    candidates: tuple[int, ...]
    k: int
    threshold: float
    metric: Metric

    @property
    def dimension(self) -> int:
        """Number of feature dimensions."""
        return self.train.shape[1]


@dataclass(frozen=True)
class NeighbourhoodEvent:
    """What the detector selected, where the hypothesis is about the m nearest.

    ``train`` (n - m, D) the features of all others, which do not move; ``before`` (m, n - m) whether they stand before
    each of the nearest in the training set; ``candidates``, ``threshold`` and ``metric`` as in :class:`Event`.
    """

    train: NDArray[np.float64]
    before: NDArray[np.bool_]
    candidates: tuple[int, ...]
    threshold: float
    metric: Metric


def is_close_call(test: NDArray, nearest: NDArray, event: "Event | NeighbourhoodEvent") -> bool:
    """Whether rounding may decide a comparison that the detector makes, because features of a network or instances are
    equal: with features (D,) of the test instance and (m, D) of the instances that move with it."""
    metric, ks = event.metric, penalty(event.candidates, len(test))
    mine, others = norm(test - nearest, metric), norm(test - event.train, metric)
    size = norm(test, metric) + norm(nearest, metric).max() + norm(event.train, metric).max(initial=0.0)
    limits = [np.exp(a - b) * d for a in ks for b in ks for d in mine]
    limits += [np.exp(event.threshold + a) for a in ks]
    distances = np.concatenate([mine, others])
    gaps = np.abs(distances[:, None] - limits)
    gaps[: len(mine), : len(ks) ** 2 * len(mine)] = np.inf  # of those that move with each other
    return bool((gaps <= 2 * ROUNDING * EPS * size).any())


def neighbourhood_region(
    z: NDArray[np.float64], test: NDArray, nearest: Sequence[NDArray], event: NeighbourhoodEvent, start: float = 0.0
) -> tuple[rg.Region, rg.Region]:
    """The z between the first and the last breakpoint at which the m nearest are the same set and the test instance is
    detected, (p, 2); and those at which single precision does not tell.

    ``z`` (K + 1,) breakpoints; ``test`` and each of ``nearest`` (K + 1, D) features there, linear in between; ``start``
    as in :class:`Pieces`.
    """
    apart = _size(test - neighbour for neighbour in nearest)
    distances = _Distances(z, test, event.train, event.metric, apart, start)
    each = [distances.to(neighbour, before) for neighbour, before in zip(nearest, event.before, strict=True)]
    regions = [np.array([[z[0], z[-1]]]) for _ in distances.ways]
    for one in each:
        # Where it is not so with the benefit of rounding, it is not without.
        if not len(regions[0]):
            return rg.EMPTY, rg.EMPTY
        ahead = one.ahead(_touched(z, regions[0]))
        regions = [
            rg.intersection(old, ahead.exactly(0, way)) for old, way in zip(regions, distances.ways, strict=True)
        ]
    m = len(each)
    for i, way in enumerate(distances.ways):
        detected = [rg.EMPTY]
        for k in event.candidates:
            radius = float(np.exp(event.threshold + penalty(k, event.train.shape[1])))
            if k <= m:  # the k-th nearest is one of the m: fewer than k of them are closer than the radius
                far = np.concatenate([one.farther(radius, way) for one in each])
                detected.append(rg.covered_at_least(far, m - k + 1))
            else:
                detected.append(distances.within(radius, -way).where(lambda others: others < k - m))  # noqa: B023
        regions[i] = rg.intersection(regions[i], rg.union(*detected))
    return _told(regions)


def selected_region(pieces: Pieces, event: Event, *, condition_on_k: bool = True) -> tuple[rg.Region, rg.Region]:
    """The z between the first and the last breakpoint at which j is selected again, (m, 2); and those at which single
    precision does not tell.

    ``condition_on_k``: for the same k; otherwise for any of the candidates, the one with the largest score at z.
    """
    apart = _size([pieces.test - pieces.neighbour])
    distances = _Distances(pieces.z, pieces.test, event.train, event.metric, apart, pieces.start)
    distances = distances.to(pieces.neighbour, event.before)
    ahead = distances.ahead(np.ones(distances.pieces, bool))
    ks = (event.k,) if condition_on_k else event.candidates
    # What does not hold with the benefit of rounding need not be looked at without it.
    each, found = [np.array([[-np.inf, np.inf]])] * len(ks), []
    for way in distances.ways:
        each = [
            _region_for(distances, event, ahead, k, way, within) if len(within) else rg.EMPTY
            for k, within in zip(ks, each, strict=True)
        ]
        found.append(rg.union(rg.EMPTY, *each))
    return _told(found)


def _told(regions: Sequence[rg.Region]) -> tuple[rg.Region, rg.Region]:
    """The region and what is doubtful of it: regions with the benefit of rounding and without it, or one in double
    precision."""
    if len(regions) == 1:
        return regions[0], rg.EMPTY
    kindly, strictly = regions
    return kindly, rg.intersection(kindly, rg.complement(strictly))


def _region_for(
    distances: "_Distances", event: Event, ahead: "_Ahead", k: int, way: float, within: rg.Region
) -> rg.Region:
    """Where j is the k-th neighbour, k has the largest score, and that score exceeds the threshold; within a region."""
    region = rg.intersection(ahead.exactly(k - 1, way), within)
    d = event.dimension
    if len(region):
        region = rg.intersection(region, distances.farther(np.exp(event.threshold + penalty(k, d)), way))
    for other in event.candidates:
        if other == k or not len(region):
            continue
        # A larger candidate has j itself among its instances, a smaller one has not.
        needed = other if other < k else other - 1
        if needed == 0:
            continue
        lam = float(np.exp(penalty(other, d) - penalty(k, d)))
        # Only the pieces that the conditions so far have left are looked at.
        closer = distances.closer(lam, _touched(distances.z, region), way)
        region = rg.intersection(region, closer.where(lambda m: m >= needed))  # noqa: B023
    return region


def _touched(z: NDArray, region: rg.Region) -> NDArray[np.bool_]:
    """Which of the pieces between the z have a part in the region, (K,)."""
    ends = np.searchsorted(region.ravel(), [z[:-1], z[1:]])  # odd: inside an interval
    return (ends[0] != ends[1]) | (ends[0] % 2 == 1)


@dataclass(frozen=True)
class _Steps:
    """A step function: ``value`` (m,) on each [start, end], (m,), none of which overlap."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    value: NDArray[np.int64]

    def where(self, condition) -> rg.Region:
        good = condition(self.value)
        return rg.as_region(np.stack([self.start[good], self.end[good]], axis=-1))


@dataclass(frozen=True)
class _Ahead:
    """How many of the others stand before j: closer, or equally close and before it in the training set.

    ``steps`` in double precision: one count. In single precision two, the most and the least that there can be, as it
    does not tell what is equally close.
    """

    steps: tuple[_Steps, ...]

    def exactly(self, m: int, way: float) -> rg.Region:
        """Where there are m: in double precision, or (``way`` 1) may be, or (``way`` -1) are for sure."""
        if len(self.steps) == 1:
            return self.steps[0].where(lambda count: count == m)
        most, least = self.steps if way > 0 else self.steps[::-1]
        return rg.intersection(most.where(lambda count: count >= m), least.where(lambda count: count <= m))


class _Distances:
    """Along the pieces, distances d_i of the test instance from the others, (K + 1, n'), and d_j from one neighbour.

    ``test`` (K + 1, D) its features, ``train`` (n', D) those of the others, which do not move. Until :meth:`to` names a
    neighbour, it is the test instance itself, at distance 0. ``apart``: the largest difference of any number of its
    features and those of a neighbour. ``start`` as in :class:`Pieces`.

    ``ways`` in which to ask: in single precision with the benefit of rounding (1.0) and without it (-1.0), for what it
    does not tell is where the answers differ; in double precision without regard to it (0.0).
    """

    def __init__(self, z: NDArray, test: NDArray, train: NDArray, metric: Metric, apart: float, start: float):
        self.z, self.pieces, self.metric, self.moving, self.start = z, len(z) - 1, metric, test, start
        self.ways = (1.0, -1.0) if test.dtype == np.float32 else (0.0,)
        # Relative to the test instance's features: the squared distances below are differences of squares. In a unit
        # in which products of these neither under- nor overflow; a power of two, so that nothing is rounded.
        centre = test[len(test) // 2]
        self.test = test - centre
        away = train - centre.astype(np.float64)
        moved = max(_size([self.test]), apart)
        size = max(moved, _size([away]))
        if test.dtype == np.float32:
            if size and not SMALLEST < size < LARGEST:
                raise NumericalError(
                    "the features are too small or too large for single precision: use float64 throughout"
                )
            moved = size
        self.unit = float(unit_of(moved or size))
        self.clipped = size > _FAR * self.unit
        # What is farther than _FAR units is as far as that, which is beyond any distance that is compared.
        away = np.clip(away / self.unit, -_FAR, _FAR)
        self.test, self.train = self.test / self.test.dtype.type(self.unit), away.astype(test.dtype)
        self.l2, self.eps = metric == "l2", ROUNDING * float(np.finfo(test.dtype).eps)
        if self.l2:
            d_i = _squares(self.train) - 2.0 * (self.test @ self.train.T).astype(np.float64)
            self.d_i = np.maximum(d_i + _squares(self.test)[:, None], 0.0)
            self.bend_i = _squares(np.diff(self.test, axis=0))
        else:
            self.test, self.train = self.test.astype(np.float64), self.train.astype(np.float64)
            self.d_i = _cross_distances(self.test, self.train, metric)
            self.bend_i = norm(np.diff(self.test, axis=0), metric)
        self.size_test = self._size_of(test)
        size_train = norm(np.clip(train / self.unit, -_FAR, _FAR), metric)
        sums = _squares(self.test)[:, None] + _squares(self.train)
        self.rounding_i = self._rounding(self.d_i, self.size_test[:, None] + size_train, sums)
        self._towards(test, np.zeros(len(train), bool))

    def to(self, neighbour: NDArray, before: NDArray[np.bool_]) -> "_Distances":
        """The same with a neighbour of features (K + 1, D); ``before`` (n',): who wins ties against it."""
        result = copy.copy(self)
        result._towards(neighbour, before)
        return result

    def _towards(self, neighbour: NDArray, before: NDArray[np.bool_]) -> None:
        self.before = before
        self.apart = (self.moving - neighbour) / self.moving.dtype.type(self.unit)
        size = self._size_of(neighbour)
        if self.l2:
            self.d_j, self.bend_j = _squares(self.apart), _squares(np.diff(self.apart, axis=0))
        else:
            self.apart = self.apart.astype(np.float64)
            self.d_j = norm(self.apart, self.metric)
            self.bend_j = norm(np.diff(self.apart, axis=0), self.metric)
        self.rounding_j = self._rounding(self.d_j, self.size_test + size)[:, None]

    def _size_of(self, features: NDArray) -> NDArray[np.float64]:
        """The size (K + 1,) of features (K + 1, D) whose rounding is theirs: their norm, and what they are off where a
        breakpoint is off by rounding, and so lies on the piece before or after, which is as much as they bend there."""
        features = features.astype(np.float64) / self.unit
        slopes = np.diff(features, axis=0) / np.diff(self.z)[:, None]
        bends = np.zeros(len(features))
        bends[1:-1] = norm(np.diff(slopes, axis=0), self.metric)
        return norm(features, self.metric) + (self.start + np.abs(self.z)) * bends

    def closer(self, lam: float, which: NDArray[np.bool_], way: float = 0.0) -> _Steps:
        """How many of the others are closer than lam d_j, along the pieces that the mask (K,) names; ``way``: rounding
        counts for (1) or against (-1) them, or not at all (0)."""
        some = np.flatnonzero(which)
        return self._closer(some, lam, way * self._shift(some, lam) if way else 0.0)

    def _closer(self, some: NDArray, lam: float, shift: NDArray | float) -> _Steps:
        """The same along the pieces ``some``; the shift (len(some), n') is added to lam d_j (l2: to the square)."""
        factor = lam**2 if self.l2 else lam
        g0, g1 = (self.d_i[at] - factor * self.d_j[at, None] - shift for at in (some, some + 1))
        if self.l2:
            segment, u, change = _quadratic_roots(g0, g1, (self.bend_i - factor * self.bend_j)[some])
        else:
            segment, u, change = self._refined(g0, g1, lam, some, np.broadcast_to(shift, g0.shape))
        return self._steps(some, (g0 < 0).sum(axis=1), segment, u, change)

    def ahead(self, which: NDArray[np.bool_]) -> _Ahead:
        """How many of the others stand before j, along the pieces that the mask (K,) names."""
        some = np.flatnonzero(which)
        shift = self._shift(some, 1.0)
        if self.ways == (0.0,):
            # What is equal to rounding counts by its place in the training set: for l2, that is all along a piece or at
            # single points, which need no shift; l1 and linf may agree on any part of it.
            gaps = (np.abs(self.d_i[at] - self.d_j[at, None]) for at in (some, some + 1))
            tied = (np.maximum(*gaps) <= shift) | (not self.l2)
            shift = np.where(tied, shift * np.where(self.before, 1.0, -1.0), 0.0)
            return _Ahead((self._closer(some, 1.0, shift),))
        return _Ahead((self._closer(some, 1.0, shift), self._closer(some, 1.0, -shift)))

    def _shift(self, some: NDArray, lam: float) -> NDArray[np.float64]:
        """How much rounding may change d_i - lam d_j (l2: the difference of the squares) along the pieces ``some``."""
        return self.rounding_i[some] + (lam**2 if self.l2 else lam) * self.rounding_j[some]

    def _rounding(self, d: NDArray, features: NDArray, sums: NDArray | float = 0.0) -> NDArray[np.float64]:
        """How much rounding may change distances d (l2: their squares) along each of the pieces: that of the features,
        of this size, and for l2 that of these sums of products; all (K + 1, ...)."""
        largest = self.eps * (np.sqrt(d) * features + sums if self.l2 else features)
        # The distances are convex, and their rounding is largest at an end of the piece, not inside of it.
        return np.maximum(largest[:-1], largest[1:])

    def farther(self, distance: float, way: float = 0.0) -> rg.Region:
        """Where d_j exceeds a distance; ``way`` as in :meth:`closer`."""
        distance = self._in_units(distance)
        some = np.arange(self.pieces)
        shift = way * self.rounding_j
        if self.l2:
            gap = distance**2 - self.d_j[:, None]
            g0, g1 = gap[:-1] - shift, gap[1:] - shift
            segment, u, change = _quadratic_roots(g0, g1, -self.bend_j)
        else:
            gap = distance - self.d_j[:, None]
            g0, g1 = gap[:-1] - shift, gap[1:] - shift
            shift = np.broadcast_to(shift, g0.shape)
            segment, u, change = self._refined(g0, g1, 1.0, some, shift, constant=distance)
        return self._steps(some, (g0[:, 0] < 0).astype(int), segment, u, change).where(lambda m: m > 0)

    def within(self, distance: float, way: float = 0.0) -> _Steps:
        """How many of the others are closer than a distance; ``way`` as in :meth:`closer`."""
        distance = self._in_units(distance)
        some = np.arange(self.pieces)
        shift = (distance**2 if self.l2 else distance) + way * self.rounding_i
        g0, g1 = self.d_i[:-1] - shift, self.d_i[1:] - shift
        if self.l2:
            segment, u, change = _quadratic_roots(g0, g1, self.bend_i)
        else:
            segment, u, change = self._refined(g0, g1, 0.0, some, np.broadcast_to(shift, g0.shape))
        return self._steps(some, (g0 < 0).sum(axis=1), segment, u, change)

    def _in_units(self, distance: float) -> float:
        if distance / self.unit > _FAR:
            if not self.clipped:
                return _FAR  # which is beyond all distances, too
            raise NumericalError(
                f"the threshold is a distance of {distance:.3g}, beside which the features hardly move: double "
                "precision does not hold both; give features of one order of magnitude"
            )
        return distance / self.unit

    def _steps(self, some: NDArray, start: NDArray, segment: NDArray, u: NDArray, change: NDArray) -> _Steps:
        """The count along the pieces `some`, from its values (len(some),) at their starts and its changes inside."""
        left, right = self.z[some], self.z[some + 1]
        at = np.clip(left[segment] + u * (right - left)[segment], left[segment], right[segment])
        owner = np.concatenate([np.arange(len(some)), segment])
        position = np.concatenate([left, at])
        order = np.lexsort((np.arange(len(owner)) >= len(some), position, owner))
        owner, position = owner[order], position[order]
        total = np.cumsum(np.concatenate([np.zeros(len(some), np.int64), change])[order])
        first = np.searchsorted(owner, np.arange(len(some)))
        value = start[owner] + total - total[first][owner] if len(owner) else total
        last = np.append(owner[1:] != owner[:-1], True) if len(owner) else np.zeros(0, bool)
        end = np.where(last, right[owner], np.append(position[1:], np.nan)) if len(owner) else position
        return _Steps(position, end, value)

    def _refined(self, g0, g1, lam: float, some: NDArray, shift: NDArray, constant: float | None = None):
        """Sign changes of d_i - lam d_j - shift (of constant - d_j) inside the pieces `some`; the distances are convex.

        Over a piece the difference changes by at most |D_i| + lam |D_j|: most pieces and instances are settled by that.
        The others are split until tangents and chords of the convex functions settle them, or both are linear.
        """
        reach = lam * self.bend_j[some] + (0.0 if constant is not None else self.bend_i[some])
        open_ = ((g0 < 0) != (g1 < 0)) | (np.abs(g0) + np.abs(g1) <= reach[:, None])
        where, instance = np.nonzero(open_)
        parts = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))]
        step = max(1, _BLOCK // self.test.shape[1])
        for begin in range(0, len(where), step):
            w, i = where[begin : begin + step], instance[begin : begin + step]
            which, u, change = _convex_roots(self._pair(some[w], i, lam, shift[w, i], constant), len(w))
            parts.append((w[which], u, change))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _pair(self, segment: NDArray, instance: NDArray, lam: float, shift: NDArray, constant: float | None):
        """(which, u) -> values, right and left derivatives of d_i and lam d_j + shift at u in [0, 1] of given pairs."""
        metric = self.metric

        def evaluate(which: NDArray, u: NDArray):
            s = segment[which]
            apart, step = self.apart[s], self.apart[s + 1] - self.apart[s]
            second = [lam * x for x in _value_and_slopes(apart + u[:, None] * step, step, metric)]
            second[0] = second[0] + shift[which]
            if constant is not None:
                return [np.full(len(u), constant), np.zeros(len(u)), np.zeros(len(u))], second
            step = self.test[s + 1] - self.test[s]
            away = self.test[s] + u[:, None] * step - self.train[instance[which]]
            return _value_and_slopes(away, step, metric), second

        return evaluate


def _size(arrays: Iterable[NDArray]) -> float:
    """The largest number of them, in size."""
    return max((float(np.abs(x).max(initial=0.0)) for x in arrays), default=0.0)


def _squares(x: NDArray) -> NDArray[np.float64]:
    """Squared lengths of the rows, (k,)."""
    return np.einsum("kd,kd->k", x, x, dtype=np.float64)


def _cross_distances(a: NDArray, b: NDArray, metric: Metric) -> NDArray[np.float64]:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(a, b, "cityblock" if metric == "l1" else "chebyshev"), np.float64)


def _value_and_slopes(v: NDArray, step: NDArray, metric: Metric):
    """|v|, and the right and left derivative of |v + t step| at t = 0, over the last axis."""
    sign, moving = np.sign(v), np.sign(step)
    right = np.where(v != 0, sign, moving) * step
    left = np.where(v != 0, sign, -moving) * step
    if metric == "l1":
        return [np.abs(v).sum(-1), right.sum(-1), left.sum(-1)]
    size = np.abs(v)
    value = size.max(axis=-1)
    top = size == value[:, None]
    return [value, np.where(top, right, -np.inf).max(-1), np.where(top, left, np.inf).min(-1)]


def _quadratic_roots(g0: NDArray, g1: NDArray, bend: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Sign changes in [0, 1] of g0 + (g1 - g0 - bend) u + bend u^2, (K, n) each, bend (K,).

    Returns (row, u, change), change +1 where the quadratic becomes negative. What is negative at 0 and at 1 decides
    about a single change, so that counts agree with the signs at the breakpoints.
    """
    inside0, inside1 = g0 < 0, g1 < 0
    row, column = np.nonzero(inside0 != inside1)
    a, c, end = bend[row], g0[row, column], g1[row, column]
    u = _the_root(a, end - c - a, c)
    change = np.where(inside1[row, column], 1, -1)
    # Two changes: a vertex between, on the other side of zero; it is at most |bend| / 4 away from either end.
    near = np.minimum(np.abs(g0), np.abs(g1)) < np.abs(bend)[:, None] / 4
    row2, column2 = np.nonzero(near & (inside0 == inside1) & (inside0 == (bend < 0)[:, None]))
    if len(row2):
        a, c = bend[row2], g0[row2, column2]
        b = g1[row2, column2] - c - a
        disc = b * b - 4 * a * c
        two = (disc > 0) & (-b * np.sign(a) > 0) & (np.abs(b) < 2 * np.abs(a))
        row2, a, b, c, disc, column2 = (x[two] for x in (row2, a, b, c, disc, column2))
        q = -0.5 * (b + np.copysign(np.sqrt(disc), b))
        roots = np.sort(np.clip(np.stack([q / a, c / q]), 0, 1), axis=0)
        first = np.where(inside0[row2, column2], -1, 1)
        row, u = np.concatenate([row, row2, row2]), np.concatenate([u, *roots])
        change = np.concatenate([change, first, -first])
    return row, u, change


def _the_root(a: NDArray, b: NDArray, c: NDArray) -> NDArray:
    """The root in [0, 1] of a u^2 + b u + c, which is negative at one of 0 and 1 only.

    Of the two roots it is the one at which the quadratic rises if c < 0, and falls otherwise: where a tie makes c zero
    to rounding, both of them may lie in [0, 1].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        q = -0.5 * (b + np.copysign(np.sqrt(np.maximum(b * b - 4 * a * c, 0)), b))
        u = np.where(np.signbit(b) == (c >= 0), c / q, q / a)
    return np.clip(np.where(np.isfinite(u), u, 0.0), 0, 1)


def _convex_roots(evaluate, size: int) -> tuple[NDArray, NDArray, NDArray]:
    """Sign changes on [0, 1] of differences of two convex piecewise-linear functions, `size` of them.

    Returns (which, u, change), change +1 where the difference becomes negative.
    """
    which, low, high = np.arange(size), np.zeros(size), np.ones(size)
    at_low, at_high = evaluate(which, low), evaluate(which, high)
    found = []
    for split in range(_MAX_SPLITS):
        width = high - low
        (f0, fs0, _), (h0, hs0, _) = at_low
        (f1, _, fs1), (h1, _, hs1) = at_high
        g0, g1 = f0 - h0, f1 - h1
        crosses = (g0 < 0) != (g1 < 0)
        scale = 1e-13 * (np.abs(f0) + np.abs(f1) + h0 + h1)
        linear = (f1 - f0 - fs0 * width <= scale) & (h1 - h0 - hs0 * width <= scale)
        # Tangents from below and chords from above: a lower bound where it is positive, an upper bound where negative.
        lower = _lowest(f0, fs0, f1, fs1, h0, h1, width)
        upper = -_lowest(h0, hs0, h1, hs1, f0, f1, width)
        settled = ~crosses & (linear | np.where(g0 < 0, upper < 0, lower >= 0))
        tiny = (width <= 1e-15) | (np.nextafter(low, high) >= high)
        root = crosses & (linear | tiny)
        if root.any():
            fraction = np.clip(g0[root] / (g0[root] - g1[root]), 0, 1)
            found.append((which[root], low[root] + fraction * width[root], np.where(g1[root] < 0, 1, -1)))
        more = ~(settled | root | tiny)
        if not more.any():
            break
        pick = lambda x: [[y[more] for y in z] for z in x]  # noqa: B023, E731
        which, low, high, at_low, at_high = which[more], low[more], high[more], pick(at_low), pick(at_high)
        g0, g1, crosses = g0[more], g1[more], crosses[more]
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = np.where(crosses & (split % 2 == 0), np.clip(g0 / (g0 - g1), 0.02, 0.98), 0.5)
        middle = low + fraction * (high - low)
        at_middle = evaluate(which, middle)
        join = lambda a, b: [[np.concatenate(y) for y in zip(*z, strict=True)] for z in zip(a, b, strict=True)]  # noqa: E731
        at_low, at_high = join(at_low, at_middle), join(at_middle, at_high)
        which = np.concatenate([which, which])
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
    else:
        raise NumericalError("the search for equal distances on a linear piece did not end")
    if not found:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
    where, at, change = (np.concatenate(column) for column in zip(*found, strict=True))
    return where, at, change


def _lowest(f0, s0, f1, s1, h0, h1, width) -> NDArray:
    """Lower bound of f - h on an interval: f is above its tangents at both ends, h below its chord."""
    # The larger of the two tangents minus the chord is convex: its minimum is at an end, or where the tangents meet.
    with np.errstate(divide="ignore", invalid="ignore"):
        meet = (f1 - s1 * width - f0) / (s0 - s1)
        meet = np.where(np.isfinite(meet), np.clip(meet, 0, width), 0)
        value = f0 + s0 * meet - h0 - (h1 - h0) * np.where(width > 0, meet / width, 0)
    return np.minimum(np.minimum(f0 - h0, f1 - h1), value)


def order_interval(pieces: Pieces, event: Event, at: float) -> rg.Region:
    """The over-conditioned interval of w/o-pp around z = at, (1, 2), on a single linear piece of the features.

    Besides the selection with the observed k, the order of the nearest instances stays what it is, as many as the
    largest candidate; for l1 and linf also the linear piece of all distances.
    """
    z0, z1 = pieces.z
    u_at = (at - z0) / (z1 - z0)
    step = (pieces.test[1] - pieces.test[0]).astype(np.float64)
    away = pieces.test[0].astype(np.float64) - event.train
    low, high = 0.0, 1.0
    if event.metric == "l2":  # d_i^2 without the part in u^2 that all have in common
        alpha, beta = np.square(away).sum(-1), 2 * away @ step
    else:
        v = away + u_at * step
        sign = np.sign(v)
        if event.metric == "l1":  # no coordinate changes its sign
            alpha, beta = (sign * away).sum(-1), (sign * step).sum(-1)
            limits = [(-sign * away, -sign * step)]
        else:  # no other coordinate, of either sign, overtakes the largest
            best = np.abs(v).argmax(-1)[:, None]
            s = np.take_along_axis(sign, best, -1)
            alpha = (s * np.take_along_axis(away, best, -1))[:, 0]
            beta = s[:, 0] * step[best[:, 0]]
            limits = [(t * away - alpha[:, None], t * step - beta[:, None]) for t in (1.0, -1.0)]
        for a, b in limits:
            low, high = _within(a, b, low, high, u_at)
    order = np.argsort(alpha + beta * u_at, kind="stable")
    m = min(event.candidates[-1] - 1, len(order))  # j is one of the nearest instances
    chain, outside = order[:m], order[m:]
    for first, second in ((chain[:-1], chain[1:]), (chain[-1:], outside)):
        if len(first) and len(second):
            low, high = _within(alpha[first] - alpha[second], beta[first] - beta[second], low, high, u_at)
    interval = [[z0 + low * (z1 - z0), z0 + high * (z1 - z0)]]
    return rg.component(rg.intersection(selected_region(pieces, event)[0], interval), at)


def _within(alpha: NDArray, beta: NDArray, low: float, high: float, at: float) -> tuple[float, float]:
    """Narrow [low, high] to the u with alpha + beta u <= 0, conditions that hold at u = at."""
    with np.errstate(divide="ignore", invalid="ignore"):
        root = -alpha / beta
    low = max(low, float(np.where(beta < 0, root, -np.inf).max(initial=-np.inf)))
    high = min(high, float(np.where(beta > 0, root, np.inf).min(initial=np.inf)))
    return min(low, at), max(high, at)
