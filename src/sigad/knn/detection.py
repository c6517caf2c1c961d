"""k-nearest-neighbour anomaly detection: scores, thresholds, and what was selected.

Source: Niihori et al. (NeurIPS 2025), section 2. Everything is vectorised over a batch of B independent problems, one
test instance each; a problem has n training instances in d input dimensions and D feature dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array
from sigad.errors import InvalidInputError, NumericalError

Metric = Literal["l2", "l1", "linf"]
METRICS = ("l2", "l1", "linf")

# Numbers per block of a batch, so that the working arrays stay in a core's cache.
_BLOCK = 1 << 15


class KnnSelection(NamedTuple):
    """What the detector selected: the k-th neighbour ``index`` of the test instance, ``k``, and the anomaly score."""

    index: int
    k: int
    score: float

    def __repr__(self) -> str:
        return f"KnnSelection(index={self.index}, k={self.k}, score={self.score:.4g})"


@dataclass(frozen=True)
class Detections:
    """B problems of k-nearest-neighbour anomaly detection and their observed selections.

    Attributes
    ----------
    x_test : (B, d) test instances.
    x_train : (B, n, d) normal training instances.
    f_test, f_train : (B, D), (B, n, D) their features.
    candidates : increasing candidate numbers of neighbours; a single one means that k is fixed.
    threshold : (B,) thresholds of the anomaly score.
    metric : distance between features.
    k : (B,) selected numbers of neighbours.
    index : (B,) selected training instances, the k-th neighbours.
    score : (B,) anomaly scores a_k.
    selected : (B,) whether the test instance is an anomaly, ``score > threshold``.
    """

    x_test: NDArray[np.float64]
    x_train: NDArray[np.float64]
    f_test: NDArray[np.float64]
    f_train: NDArray[np.float64]
    candidates: tuple[int, ...]
    threshold: NDArray[np.float64]
    metric: Metric
    k: NDArray[np.int64]
    index: NDArray[np.int64]
    score: NDArray[np.float64]
    selected: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x_test)

    def __getitem__(self, which: slice | NDArray) -> "Detections":
        """The problems that a slice, a mask or an index array names."""
        arrays = ("x_test", "x_train", "f_test", "f_train", "threshold", "k", "index", "score", "selected")
        return Detections(
            **{name: getattr(self, name)[which] for name in arrays}, candidates=self.candidates, metric=self.metric
        )

    @property
    def selections(self) -> list[KnnSelection]:
        """The B selections, one by one."""
        return [KnnSelection(int(i), int(k), float(s)) for i, k, s in zip(self.index, self.k, self.score, strict=True)]

    @property
    def difference(self) -> NDArray[np.float64]:
        """x_test - x_j, (B, d)."""
        return self.x_test - self.x_train[np.arange(len(self)), self.index]


def in_range(detections: Detections) -> Detections:
    """The same problems for computations with squares: those whose distances are extreme are moved to the test
    instance, and given in units of the distance of the selected neighbour. What is farther than 1e60 of them is as far
    as that, which is beyond the null distribution in any case."""
    neighbour = detections.f_train[np.arange(len(detections)), detections.index]
    length = norm(detections.f_test - neighbour, detections.metric)
    extreme = out_of_range(length) & (length > 0)
    if not extreme.any():
        return detections
    unit = np.where(extreme, unit_of(length), 1.0)
    f_test, f_train = detections.f_test.copy(), detections.f_train.copy()
    with np.errstate(over="ignore"):
        f_train[extreme] = (f_train[extreme] - f_test[extreme, None]) / unit[extreme, None, None]
    f_train[extreme] = np.clip(f_train[extreme], -1e60, 1e60)
    f_test[extreme] = 0.0
    return replace(detections, f_test=f_test, f_train=f_train, threshold=detections.threshold - np.log(unit))


def require_apart(detections: Detections) -> None:
    """Raise NumericalError if a test instance is one of its own training instances: they are not independent.

    In input space: a network may well give equal features to different instances.
    """
    # Few agree in the first coordinate; only those are compared wholly.
    b, i = np.nonzero(detections.x_train[:, :, 0] == detections.x_test[:, None, 0])
    if (detections.x_train[b, i] == detections.x_test[b]).all(axis=-1).any():
        raise NumericalError(
            "the test instance is itself among the training instances: leave it out of them, or do not round values "
            "more coarsely than their noise"
        )


def norm(x: NDArray, metric: Metric) -> NDArray[np.float64]:
    """Norm over the last axis, of vectors of any magnitude."""
    if metric == "l1":
        return np.abs(x).sum(axis=-1)
    if metric == "linf":
        return np.abs(x).max(axis=-1)
    with np.errstate(over="ignore"):
        result = np.asarray(np.sqrt(np.square(x).sum(axis=-1)))
    extreme = out_of_range(result)
    if extreme.any():
        unit = unit_of(np.abs(x[extreme]).max(axis=-1))
        with np.errstate(over="ignore"):  # the norm itself may
            result[extreme] = unit * np.sqrt(np.square(x[extreme] / unit[..., None]).sum(axis=-1))
    return result


def out_of_range(size: NDArray) -> NDArray[np.bool_]:
    """Where squares of numbers of this size, or products of two squares, under- or overflow."""
    return ~((size > 2.0**-200) & (size < 2.0**200))


def unit_of(size: NDArray | float) -> NDArray[np.float64]:
    """The power of two below each size, by which to divide without rounding; 1 for 0."""
    size = np.where(size > 0, size, 1.0)
    return np.ldexp(1.0, np.frexp(size)[1] - 1)


@overload
def penalty(k: int, dimension: int) -> np.float64: ...


@overload
def penalty(k: ArrayLike, dimension: int) -> NDArray[np.float64]: ...


def penalty(k, dimension):
    """log(k) / D: what the anomaly score subtracts, so that scores of different k compare.

    Up to a constant, the score a_k = log d_(k) - log(k)/D is -1/D times the logarithm of the k-nearest-neighbour
    density estimate (Loftsgaarden & Quesenberry 1965).
    """
    return np.log(np.asarray(k, dtype=np.float64)) / dimension


def scores(distances: NDArray, candidates: Sequence[int], dimension: int) -> NDArray[np.float64]:
    """Anomaly scores a_k = log d_(k) - log(k)/D for every candidate k.

    Parameters
    ----------
    distances : (..., n) distances of a test instance to the training instances.
    candidates : increasing candidate numbers of neighbours, the largest at most n.
    dimension : number of feature dimensions D.

    Returns
    -------
    (..., len(candidates))
    """
    ranks = np.asarray(candidates) - 1
    nearest = np.sort(np.partition(distances, ranks[-1], axis=-1)[..., : ranks[-1] + 1], axis=-1)
    with np.errstate(divide="ignore"):
        return np.log(nearest[..., ranks]) - penalty(candidates, dimension)


def blocks(size: int, numbers_each: int) -> list[slice]:
    """Slices that cut a batch into blocks of bounded memory; their borders do not depend on anything else."""
    step = max(1, _BLOCK // max(numbers_each, 1))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def check_candidates(k: int | Sequence[int], n: int) -> tuple[int, ...]:
    """Candidate numbers of neighbours as an increasing tuple; raises InvalidInputError unless 1 <= k <= n."""
    try:
        at_hand = getattr(k, "cpu", lambda: k)()  # a tensor may lie on another device
        given = np.atleast_1d(np.asarray(at_hand))
        candidates = tuple(sorted({int(c) for c in given if c == int(c)}))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"k must be a whole number or a sequence of them, not {k!r}") from error
    if not candidates or len(candidates) != given.size:
        raise InvalidInputError(f"k must be a whole number or a sequence of distinct ones, not {k!r}")
    if candidates[0] < 1 or candidates[-1] > n:
        raise InvalidInputError(
            f"k must lie between 1 and the number of training instances: k = {k!r}, but there are n = {n}"
        )
    return candidates


def _apply(matrix: NDArray, x: NDArray) -> NDArray[np.float64]:
    """matrix @ x for every instance x (..., d), one by one: equal instances get equal features to the last bit,
    whatever else is in the batch, which a product of two matrices does not promise."""
    return (matrix @ x[..., None])[..., 0]


def detect(
    x_test: ArrayLike,
    x_train: ArrayLike,
    *,
    k: int | Sequence[int],
    threshold: ArrayLike,
    metric: Metric = "l2",
    features: ArrayLike | None = None,
) -> Detections:
    """Run the detector on a batch of problems.

    The neighbours of equal distance are ranked by their position in the training set; of equal scores the smallest k
    is taken.

    Parameters
    ----------
    x_test : (B, d) test instances.
    x_train : (B, n, d), or (n, d) when all problems share their training instances.
    k : number of neighbours, or candidates of which the one with the largest score is taken (data-driven k).
    threshold : threshold of the anomaly score, scalar or (B,); must not depend on the instances given here.
    metric : ``"l2"``, ``"l1"`` or ``"linf"``, the distance between features.
    features : None for the identity, or a matrix (D, d): the features of x are ``features @ x``.

    Raises
    ------
    InvalidInputError
        for NaN, infinite values, shapes that do not fit, or k out of range.
    """
    x_test, x_train = real_array(x_test, "x_test"), real_array(x_train, "x_train")
    if x_test.ndim != 2 or x_train.ndim not in (2, 3) or x_test.shape[-1] != x_train.shape[-1] or x_test.shape[-1] < 1:
        raise InvalidInputError(
            "instances must have the shapes (B, d) for test and (n, d) or (B, n, d) for training, "
            f"not {x_test.shape} and {x_train.shape}"
        )
    if x_train.ndim == 2:
        x_train = np.broadcast_to(x_train, (len(x_test), *x_train.shape))
    if len(x_train) != len(x_test):
        raise InvalidInputError(f"{len(x_test)} test instances but {len(x_train)} sets of training instances")
    f_test, f_train = x_test, x_train
    if features is not None:
        matrix = real_array(features, "features")
        if matrix.ndim != 2 or matrix.shape[1] != x_test.shape[1] or not len(matrix):
            raise InvalidInputError(f"features must be a matrix of shape (D, {x_test.shape[1]}), not {matrix.shape}")
        f_test, f_train = _apply(matrix, x_test), _apply(matrix, x_train)
    return detect_features(x_test, x_train, f_test, f_train, k=k, threshold=threshold, metric=metric)


def detect_features(
    x_test: NDArray,
    x_train: NDArray,
    f_test: NDArray,
    f_train: NDArray,
    *,
    k: int | Sequence[int],
    threshold: ArrayLike,
    metric: Metric = "l2",
) -> Detections:
    """Run the detector on features (B, D) and (B, n, D) of instances (B, d) and (B, n, d), however they were computed.

    ``k``, ``threshold``, ``metric`` and errors as in :func:`detect`.
    """
    if not isinstance(metric, str) or metric not in METRICS:
        raise InvalidInputError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    threshold = real_array(threshold, "threshold", infinite=True)
    if threshold.ndim > 1 or (threshold.ndim == 1 and len(threshold) != len(x_test)):
        raise InvalidInputError(f"threshold must be a number, or one per test instance, not of shape {threshold.shape}")
    candidates = check_candidates(k, x_train.shape[-2])
    with np.errstate(over="ignore"):
        distances = norm(f_test[:, None, :] - f_train, metric)
    if not np.isfinite(distances).all():
        raise InvalidInputError("distances overflow: give the instances, or their features, in larger units")
    a = scores(distances, candidates, f_test.shape[-1])
    best = a.argmax(axis=-1)
    k_best = np.asarray(candidates)[best]
    nearest = np.partition(distances, candidates[-1] - 1, axis=-1)[:, : candidates[-1]]
    nearest.sort(axis=-1)
    kth = np.take_along_axis(nearest, k_best[:, None] - 1, axis=-1)
    tied = distances == kth
    place = k_best[:, None] - (distances < kth).sum(axis=-1, keepdims=True)
    index = (np.cumsum(tied, axis=-1) == place).argmax(axis=-1)
    score = np.take_along_axis(a, best[:, None], axis=-1)[:, 0]
    threshold = np.broadcast_to(threshold, len(x_test))
    return Detections(
        x_test=x_test,
        x_train=x_train,
        f_test=f_test,
        f_train=f_train,
        candidates=candidates,
        threshold=threshold,
        metric=metric,
        k=k_best,
        index=index,
        score=score,
        selected=score > threshold,
    )
