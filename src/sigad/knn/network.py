"""The kNN test with the features of a network: any torch module that is piecewise linear.

Only the test instance and its selected neighbour move along the line, so that only these two go through the network
piece by piece; the features of the other training instances are computed once, and may be shared by many tests.
Source: Niihori et al. (NeurIPS 2025), appendix B.
"""

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from sigad.blackbox import answer_of
from sigad.checks import real_array
from sigad.errors import InvalidInputError, NumericalError
from sigad.inference import region as rg
from sigad.inference.engines import engine_of, way_out
from sigad.inference.hypothesis import PiecewiseHypothesis, require_piecewise_linear
from sigad.inference.lattice import Lattice
from sigad.inference.region import Region
from sigad.inference.result import FAILED, NOT_SELECTED, TESTED, BatchResult, Decision, Tolerance
from sigad.inference.ties import EPS, SLACK, require_interior, require_no_copies
from sigad.inference.truncated import Null, of_statistics
from sigad.knn.against import Against, AgainstNeighbour, parse_against
from sigad.knn.covariance import KnnCovariance, checked, standardised
from sigad.knn.detection import Detections, Metric, detect, detect_features, norm, require_apart
from sigad.knn.neighbourhood import members
from sigad.knn.pieces import (
    ROUNDING,
    Event,
    NeighbourhoodEvent,
    Pieces,
    is_close_call,
    neighbourhood_region,
    order_interval,
    selected_region,
)
from sigad.line import LineFunction, Restriction
from sigad.line.function import align
from sigad.line.restriction import converted

# End points nearer than this, in standard deviations, are due to a comparison that rounding may decide.
_CLOSE = 1e-7
# Distances between features must be so many times their rounding; by which l1 and linf move end points, for ties.
_UNRESOLVED = {"l2": 2.0**10, "l1": 2.0**20, "linf": 2.0**20}
# And the statistic so large: what is found is then right to 1e-6.
_SMALLEST = 1e-9
# Numbers of training features that are copied at once when the detector is run at many points.
_NUMBERS = 1 << 22


class NetworkFeatures:
    """A network as a map from instances to features.

    Holds the network in single precision, for the search along the line, and in double precision, for the features,
    the observed selection and the end points of the truncation region; both are made once. The test is about the
    instances that go in: preprocessing that is affine (normalisation, order of channels, resizing) belongs into the
    module.

    >>> features = NetworkFeatures(module)
    >>> f_train = features(x_train)
    >>> for x in x_test:
    ...     knn_test(x, x_train, k=5, threshold=threshold, features=features, train_features=f_train)

    Parameters
    ----------
    module : in eval mode; sees instances (m, *shape), its output of any shape is flattened. Piecewise linear for the
        exact engine.
    device : of the computation; that of the module's parameters if None.
    memory_budget : bytes that activations may take at once.
    dtype : precision of the features that are compared. Single is several times as fast, and for the lattice engine
        only.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        device: torch.device | str | None = None,
        memory_budget: int = 2**30,
        dtype: torch.dtype = torch.float64,
    ):
        module = _as_module(module)
        random = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        if any(isinstance(part, random) and part.training for part in module.modules()):
            raise InvalidInputError("the network is in training mode, in which features are random: call module.eval()")
        if device is None:
            device = next((p.device for p in (*module.parameters(), *module.buffers())), torch.device("cpu"))
        if dtype not in (torch.float32, torch.float64):
            raise InvalidInputError(f"dtype must be torch.float32 or torch.float64, not {dtype}")
        self.device, self.memory_budget, self.dtype = torch.device(device), memory_budget, dtype
        self._module = module

    @classmethod
    def of(cls, features: Callable) -> "NetworkFeatures":
        """Features as they are, or those of a module; raises InvalidInputError for anything else."""
        return features if isinstance(features, cls) else cls(_as_module(features))

    @cached_property
    def single(self) -> Callable:
        """The network in float32."""
        return converted(copy.deepcopy(self._module), torch.float32, self.device)

    @cached_property
    def double(self) -> Callable:
        """The network in float64."""
        return converted(copy.deepcopy(self._module), torch.float64, self.device)

    def __call__(self, x: ArrayLike, *, batch_size: int = 64) -> NDArray[np.float64]:
        """Features (m, D) of instances (m, *shape), in the precision of the detector."""
        if self.dtype == torch.float32:
            return self.approximate(x, batch_size=batch_size)
        return self._run(self.double, torch.float64, x, batch_size).astype(np.float64, copy=False)

    def approximate(self, x: ArrayLike, *, batch_size: int = 64) -> NDArray[np.float64]:
        """Features in single precision: ten times as fast, for thresholds and figures."""
        return self._run(self.single, torch.float32, x, batch_size).astype(np.float64)

    def _run(self, module: Callable, dtype: torch.dtype, x: ArrayLike, batch_size: int) -> NDArray:
        x = real_array(x, "instances")
        if x.ndim < 2 or not len(x):
            raise InvalidInputError(f"instances must have shape (m, *shape), m at least 1, not {x.shape}")
        parts = []
        with torch.no_grad():
            for start in range(0, len(x), batch_size):
                batch = torch.tensor(x[start : start + batch_size], device=self.device, dtype=dtype)
                out = answer_of(module, batch)
                if not isinstance(out, torch.Tensor) or out.ndim < 1 or len(out) != len(batch):
                    raise InvalidInputError(
                        f"the network must return the features of m instances as a tensor (m, ...), not "
                        f"{tuple(out.shape) if hasattr(out, 'shape') else type(out).__name__}: "
                        "wrap it in a module that does"
                    )
                parts.append(out.reshape(len(batch), -1).cpu().numpy())
        features = np.concatenate(parts)
        if not np.isfinite(features).all():
            raise InvalidInputError("the network gave features that are not finite")
        return features


def _as_module(features: object) -> nn.Module:
    if not isinstance(features, nn.Module):
        raise InvalidInputError(f"features must be None, a matrix, or a torch.nn.Module, not {type(features)}")
    return features


@dataclass(frozen=True)
class NeighbourHypothesis(PiecewiseHypothesis):
    """The signals of the test instance and of its selected neighbour are equal (Niihori et al. 2025, section 3).

    ``middle`` and ``direction`` (*shape): x(z) = middle + z direction, x_j(z) = middle - z direction, both as observed
    at z = ``statistic``; ``event`` what was selected; ``condition_on_k`` whether the selected k is part of it.
    """

    features: NetworkFeatures
    middle: NDArray[np.float64]
    direction: NDArray[np.float64]
    statistic: float
    null: Null
    event: Event
    condition_on_k: bool = True

    @classmethod
    def of(
        cls,
        features: NetworkFeatures,
        detections: Detections,
        b: int,
        statistic: float,
        shape: tuple[int, ...],
        *,
        condition_on_k: bool = True,
        null: Null | None = None,
    ) -> "NeighbourHypothesis":
        """The hypothesis of the b-th detection, whose instances have the given shape; ``null`` if it is not chi.

        Raises NumericalError as :func:`~sigad.knn.detection.require_apart`, and for a neighbour that has a copy.
        """
        require_apart(detections[b : b + 1])
        j = int(detections.index[b])
        require_no_copies(detections.x_train[b], [j])
        test, neighbour = detections.x_test[b].reshape(shape), detections.x_train[b, j].reshape(shape)
        event = Event(
            train=np.delete(detections.f_train[b], j, axis=0),
            before=np.arange(detections.f_train.shape[1] - 1) < j,
            candidates=detections.candidates,
            k=int(detections.k[b]),
            threshold=float(detections.threshold[b]),
            metric=detections.metric,
        )
        middle, direction = (test + neighbour) / 2, (test - neighbour) / (2 * statistic)
        null = ("chi", test.size) if null is None else null
        return cls(features, middle, direction, statistic, null, event, condition_on_k)

    def same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        z = np.asarray(z, np.float64)
        step = max(1, _NUMBERS // self.event.train.size)
        return np.concatenate([np.zeros(0, bool), *(self._same(z[i : i + step]) for i in range(0, len(z), step))])

    def _same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        j, event = int(self.event.before.sum()), self.event
        test, neighbour = (self._at(z, sign) for sign in (1.0, -1.0))
        train = np.repeat(np.insert(event.train, j, 0.0, axis=0)[None], len(z), axis=0)
        train[:, j] = neighbour
        found = detect(test, train, k=event.candidates, threshold=event.threshold, metric=event.metric)
        same = found.selected & (found.index == j)
        return same & (found.k == event.k) if self.condition_on_k else same

    def restriction(self, dtype: torch.dtype) -> Restriction:
        self._observed  # noqa: B018  raises where no precision suffices, before anything is searched
        module = self.features.single if dtype == torch.float32 else self.features.double
        middle, direction = torch.from_numpy(self.middle), torch.from_numpy(self.direction)
        return Restriction(
            lambda test, neighbour: (module(test), module(neighbour)),
            (middle, middle),
            (direction, -direction),
            dtype=dtype,
            device=self.features.device,
            memory_budget=self.features.memory_budget,
        )

    def agreement(self, part: tuple[LineFunction, LineFunction]) -> tuple[Region, Region]:
        z, test, neighbour = _aligned(part)
        pieces = Pieces(z, test, neighbour, _over(self.middle, self.direction))
        return selected_region(pieces, self.event, condition_on_k=self.condition_on_k)

    def interior(self, region: Region) -> Region:
        """A region, if the statistic lies inside of it; raises NumericalError on an end point, or outside."""
        return super().interior(_not_close(region, self, *self._observed))

    @cached_property
    def _observed(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Features (1, D) of both instances at the statistic."""
        return _resolved(self, *(self._at(np.array([self.statistic]), sign) for sign in (1.0, -1.0)))

    @cached_property
    def _linear_piece(self) -> Pieces:
        """Both instances' features on the one linear piece that holds the statistic."""
        z = self.piece()[0]
        return Pieces(z, test=self._at(z, 1.0), neighbour=self._at(z, -1.0))

    def _at(self, z: NDArray, sign: float) -> NDArray[np.float64]:
        """Features of x(z) (sign 1) or of x_j(z) (sign -1), (len(z), D)."""
        return self.features(self.middle + sign * z.reshape(-1, *[1] * self.middle.ndim) * self.direction)

    def order_region(self) -> Region:
        """w/o-pp: the interval around the statistic on which the network's linear piece, the order of the nearest
        instances and the selection stay as observed, (1, 2)."""
        return self.interior(order_interval(self._linear_piece, self.event, self.statistic))

    def piece_region(self) -> Region:
        """OpA1: the network's linear piece and no event of the neighbours, (1, 2)."""
        return self.piece()

    def linearised_region(self) -> Region:
        """OpA2: the events of the neighbours for the network linearised at the observation, its piece ignored."""
        piece = self._linear_piece
        low, high = piece.z
        ends = np.array(self.reach)
        share = ((ends - low) / (high - low))[:, None]
        extended = [f[0] + share * (f[1] - f[0]) for f in (piece.test, piece.neighbour)]
        region = selected_region(Pieces(ends, *extended), self.event, condition_on_k=self.condition_on_k)[0]
        return self.interior(region)


@dataclass(frozen=True)
class NeighbourhoodHypothesis(PiecewiseHypothesis):
    """The signal of the test instance is the mean of those of its m nearest (:mod:`sigad.knn.neighbourhood`).

    ``start`` and ``direction`` (m + 1, *shape): the test instance and its m nearest are start + z direction, as
    observed at z = ``statistic``; ``indices`` (m,) which training instances these are; ``event`` what was selected.
    """

    features: NetworkFeatures
    start: NDArray[np.float64]
    direction: NDArray[np.float64]
    indices: NDArray[np.int64]
    statistic: float
    null: Null
    event: NeighbourhoodEvent

    @classmethod
    def of(
        cls,
        features: NetworkFeatures,
        detections: Detections,
        b: int,
        m: int,
        statistic: float,
        shape: tuple[int, ...],
        *,
        null: Null | None = None,
    ) -> "NeighbourhoodHypothesis":
        """The hypothesis of the b-th detection, whose instances have the given shape; ``null`` if it is not chi.

        Raises NumericalError as :func:`~sigad.knn.detection.require_apart`, and if one of the m nearest has a copy.
        """
        require_apart(detections[b : b + 1])
        inside = members(detections[b : b + 1], m)[0]
        indices, others = np.flatnonzero(inside), np.flatnonzero(~inside)
        require_no_copies(detections.x_train[b], indices)
        moving = np.concatenate([detections.x_test[b][None], detections.x_train[b, indices]])
        step = (moving[0] - moving[1:].mean(axis=0)) / ((1 + 1 / m) * statistic)
        direction = np.stack([step, *[-step / m] * m])
        event = NeighbourhoodEvent(
            train=detections.f_train[b, others],
            before=others < indices[:, None],
            candidates=detections.candidates,
            threshold=float(detections.threshold[b]),
            metric=detections.metric,
        )
        moving, direction = ((x.reshape(m + 1, *shape)) for x in (moving, direction))
        null = ("chi", step.size) if null is None else null
        return cls(features, moving - statistic * direction, direction, indices, statistic, null, event)

    def same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        z = np.asarray(z, np.float64)
        n = len(self.event.train) + len(self.indices)
        step = max(1, _NUMBERS // (n * self.event.train.shape[1]))
        return np.concatenate([np.zeros(0, bool), *(self._same(z[i : i + step]) for i in range(0, len(z), step))])

    def _same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        event, m = self.event, len(self.indices)
        moving = self.start + z.reshape(-1, *[1] * self.start.ndim) * self.direction
        f = self.features(moving.reshape(-1, *moving.shape[2:])).reshape(len(z), m + 1, -1)
        train = np.empty((len(z), m + len(event.train), f.shape[2]))
        inside = np.isin(np.arange(train.shape[1]), self.indices)
        train[:, inside], train[:, ~inside] = f[:, 1:], event.train
        found = detect(f[:, 0], train, k=event.candidates, threshold=event.threshold, metric=event.metric)
        return found.selected & (members(found, m) == inside).all(axis=1)

    def restriction(self, dtype: torch.dtype) -> Restriction:
        self._observed  # noqa: B018  raises where no precision suffices, before anything is searched
        module = self.features.single if dtype == torch.float32 else self.features.double
        return Restriction(
            lambda *instances: tuple(map(module, instances)),
            tuple(torch.from_numpy(self.start)),
            tuple(torch.from_numpy(self.direction)),
            dtype=dtype,
            device=self.features.device,
            memory_budget=self.features.memory_budget,
        )

    def interior(self, region: Region) -> Region:
        """A region, if the statistic lies inside of it; raises NumericalError on an end point, or outside."""
        return super().interior(_not_close(region, self, *self._observed))

    @cached_property
    def _observed(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Features (1, D) and (m, D) of the test instance and its nearest at the statistic."""
        features = self.features(self.start + self.statistic * self.direction)
        return _resolved(self, features[:1], features[1:])

    def agreement(self, part: tuple[LineFunction, ...]) -> tuple[Region, Region]:
        z, test, *nearest = _aligned(part)
        start = max(itertools.starmap(_over, zip(self.start, self.direction, strict=True)))
        return neighbourhood_region(z, test, nearest, self.event, start)


def _resolved(
    hypothesis: NeighbourHypothesis | NeighbourhoodHypothesis, test: NDArray, nearest: NDArray
) -> tuple[NDArray, NDArray]:
    """The features, if double precision resolves them and the line.

    Raises NumericalError where their distances are hardly more than their rounding, because weights, biases or inputs
    of the network differ too much in magnitude; and where the statistic is too small: along the line distances grow
    with z, and those next to the statistic and those where the null law has its mass are not held by the same numbers.
    """
    if hypothesis.statistic < _SMALLEST:
        raise NumericalError(
            f"the statistic is {hypothesis.statistic:.3g} standard deviations, too small for a search along the line: "
            "is the covariance given in the units of the instances?"
        )
    metric = hypothesis.event.metric
    size = float(norm(np.concatenate([test, nearest]), metric).max())
    distance = float(norm(test - nearest, metric).max())
    if distance and distance < _UNRESOLVED[metric] * ROUNDING * EPS * size:
        raise NumericalError(
            f"the features are as large as {size:.3g}, their distances {distance:.3g}: of these, double precision "
            "leaves too few digits; centre the features, or give weights, biases and inputs of one order of magnitude"
        )
    return test, nearest


def _not_close(region: Region, hypothesis, test: NDArray, nearest: NDArray) -> Region:
    """The region, if no end point is near the statistic where rounding may decide about the selection: features (1, D)
    of the test instance and (m, D) of those that move with it. A slow network moves the end points by more than the
    rounding of its input."""
    if is_close_call(test[0], nearest, hypothesis.event):
        require_interior(region, hypothesis.statistic, _CLOSE * max(1.0, hypothesis.statistic) / SLACK)
    return region


def _over(start: NDArray, direction: NDArray) -> float:
    """The size of the data where the line starts, in units of their change along it."""
    return float(np.abs(start).max() / np.abs(direction).max())


def _aligned(functions: Sequence[LineFunction]) -> list[NDArray]:
    """The union of the functions' breakpoints (K + 1,), and the features (K + 1, D) of each of them there."""
    functions = align(list(functions))
    values = [f.values.reshape(len(f.values), -1).cpu().numpy() for f in functions]
    return [functions[0].breakpoints.cpu().numpy(), *values]


def detect_network(
    x_test: NDArray,
    x_train: NDArray,
    *,
    k: int | Sequence[int],
    threshold: ArrayLike,
    metric: Metric = "l2",
    features: Callable,
    train_features: ArrayLike | None = None,
) -> tuple[Detections, tuple[int, ...], NetworkFeatures]:
    """Run the detector on the features of a network.

    Parameters
    ----------
    x_test : (B, *shape); x_train : (n, *shape) or (B, n, *shape).
    features : a torch module or :class:`~sigad.knn.network.NetworkFeatures`; the others as in :func:`knn_test_batch`.

    Returns
    -------
    The detections, on flattened instances; the shape of an instance; the network.
    """
    network = NetworkFeatures.of(features)
    b, shape = len(x_test), x_test.shape[1:]
    shared = x_train.ndim == x_test.ndim
    if x_test.ndim < 2 or x_train.shape[-len(shape) :] != shape or x_train.ndim - x_test.ndim not in (0, 1):
        raise InvalidInputError(
            "instances must have the shapes (B, *shape) for test and (n, *shape) or (B, n, *shape) for training, "
            f"not {x_test.shape} and {x_train.shape}"
        )
    if b == 0 or not (shared or len(x_train) == b):
        raise InvalidInputError(f"{b} test instances but {len(x_train)} sets of training instances")
    f_test, sets = network(x_test), x_train[None] if shared else x_train
    if train_features is None:
        f_train = np.stack([network(instances) for instances in sets])
    else:
        f_train = real_array(train_features, "train_features")
        f_train = f_train[None] if f_train.ndim == 2 else f_train
        if f_train.shape != (len(sets), sets.shape[1], f_test.shape[1]):
            raise InvalidInputError(
                f"train_features must be of shape {(sets.shape[1], f_test.shape[1])} for each training set, "
                f"not {np.shape(train_features)}: compute them by NetworkFeatures from the same x_train"
            )
    sets = sets.reshape(*sets.shape[:2], -1)
    if shared:
        sets, f_train = (np.broadcast_to(x, (b, *x.shape[1:])) for x in (sets, f_train))
    found = detect_features(x_test.reshape(b, -1), sets, f_test, f_train, k=k, threshold=threshold, metric=metric)
    return found, shape, network


def knn_test_network_batch(
    x_test: NDArray,
    x_train: NDArray,
    *,
    k: int | Sequence[int],
    threshold: ArrayLike,
    covariance: KnnCovariance,
    against: Against,
    metric: Metric,
    condition_on_k: bool,
    features: Callable,
    train_features: ArrayLike | None,
    engine: str | Lattice,
    tolerance: Tolerance | Decision | float,
) -> BatchResult:
    """:func:`sigad.knn.knn_test_batch` with the features of a network; a search that fails leaves its status."""
    start, run, tolerance = time.perf_counter(), engine_of(engine), Tolerance.of(tolerance)
    found, shape, network = detect_network(
        x_test, x_train, k=k, threshold=threshold, metric=metric, features=features, train_features=train_features
    )
    if engine == "exact" and network.dtype != torch.float64:
        raise InvalidInputError("the exact engine needs features in double precision: NetworkFeatures(module)")
    if engine == "exact" and not found.selected.any():
        with way_out():
            require_piecewise_linear(network.double, x_test[0], network.device)
    b, n = found.x_train.shape[:2]
    test = parse_against(against, candidates=found.candidates, n=n, condition_on_k=condition_on_k)
    t, null = standardised(test.difference(found), checked(covariance)[0], test.factor)
    t = np.where(found.selected, t, np.nan)
    p, low, high = (np.full(b, np.nan) for _ in range(3))
    status = np.where(found.selected, TESTED, NOT_SELECTED)
    regions, pieces = [rg.EMPTY] * b, np.zeros(b, np.int64)
    seconds, reason = np.full(b, (time.perf_counter() - start) / b), np.full(b, "", object)
    for i in np.flatnonzero(found.selected):
        try:
            one = float(t[i]), shape
            if isinstance(test, AgainstNeighbour):
                hypothesis = NeighbourHypothesis.of(
                    network, found, i, *one, condition_on_k=condition_on_k, null=of_statistics(null, i)
                )
            else:
                hypothesis = NeighbourhoodHypothesis.of(network, found, i, test.m, *one, null=of_statistics(null, i))
            result = run(hypothesis, tolerance=tolerance)
        except NumericalError as error:
            status[i], reason[i] = FAILED, str(error)
            continue
        p[i], low[i], high[i] = result.p_value, result.p_low, result.p_high
        regions[i], pieces[i], seconds[i] = result.region, result.n_evaluations, seconds[i] + result.seconds
    region = np.full((b, max(1, *map(len, regions)), 2), np.inf)
    for i, intervals in enumerate(regions):
        region[i, : len(intervals)] = intervals
    return BatchResult(status, t, p, low, high, region, test.selections(found), pieces, seconds, reason)
