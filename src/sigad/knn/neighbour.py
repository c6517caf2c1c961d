"""The selective test for k-nearest-neighbour anomaly detection.

Source: Niihori et al. (NeurIPS 2025), sections 3 and 4; the region for identity and linear features is in closed form,
that for the features of a network is searched for (:mod:`sigad.knn.network`).
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array
from sigad.errors import InvalidInputError, NumericalError
from sigad.inference.result import FAILED, NOT_SELECTED, TESTED, TOLERANCE, BatchResult, Decision, TestResult, Tolerance
from sigad.inference.truncated import of_statistics, truncated_pvalue
from sigad.knn.against import Against, AgainstNeighbour, AgainstNeighbourhood, parse_against
from sigad.knn.covariance import CheckedCovariance, KnnCovariance, checked, of_problems, standardised, statistic
from sigad.knn.detection import Detections, Metric, blocks, detect

if TYPE_CHECKING:  # it needs torch, which takes seconds to import and which no table needs
    from sigad.inference.lattice import Lattice


def knn_test_batch(
    x_test: ArrayLike,
    x_train: ArrayLike,
    *,
    k: int | Sequence[int],
    threshold: ArrayLike,
    covariance: KnnCovariance,
    against: Against = "neighbour",
    metric: Metric = "l2",
    condition_on_k: bool = True,
    features: ArrayLike | Callable | None = None,
    train_features: ArrayLike | None = None,
    engine: "str | Lattice" = "exact",
    tolerance: Tolerance | Decision | float = TOLERANCE,
) -> BatchResult:
    """Selective p-values of B detected anomalies; :func:`knn_test` for many instances or independent trials at once.

    Parameters
    ----------
    x_test : (B, d) test instances; (B, *shape) if features is a network.
    x_train : (n, d) shared, or (B, n, d) one training set per test instance; likewise with *shape.
    threshold : threshold, scalar or (B,).
    covariance : scalar, (d,), (d, d) or (B, d, d), or an estimate, shared or one for each problem.
    train_features : (n, D) or (B, n, D), as in :func:`knn_test`.
    k, against, metric, condition_on_k, features, engine, tolerance : as in :func:`knn_test`.

    Raises
    ------
    InvalidInputError
        for NaN, shapes that do not fit, k out of range, or a covariance that is not positive definite.
    """
    start = time.perf_counter()
    x_test, x_train = real_array(x_test, "x_test"), real_array(x_train, "x_train")
    if callable(features):
        from sigad.knn.network import knn_test_network_batch

        return knn_test_network_batch(
            x_test,
            x_train,
            k=k,
            threshold=threshold,
            covariance=covariance,
            against=against,
            metric=metric,
            condition_on_k=condition_on_k,
            features=features,
            train_features=train_features,
            engine=engine,
            tolerance=tolerance,
        )
    if not isinstance(engine, str) or engine != "exact":
        raise InvalidInputError('linear features have a closed form: engine must be "exact", the default')
    if train_features is not None:
        raise InvalidInputError("train_features are those of a network: pass the network as features")
    tolerance = Tolerance.of(tolerance)  # of a search, which there is none; checked all the same
    covariance, covariances = checked(covariance)
    threshold = real_array(threshold, "threshold", infinite=True)
    if x_test.ndim != 2:
        raise InvalidInputError(f"x_test must have shape (B, d), not {x_test.shape}; knn_test takes a single instance")
    # Before the batch is cut into blocks, which would hide what is too long.
    for given, name in (
        (len(x_train) if x_train.ndim == 3 else 0, "training sets"),
        (len(threshold) if threshold.ndim == 1 else 0, "thresholds"),
        (covariances, "covariances"),
    ):
        if given not in (0, len(x_test)):
            raise InvalidInputError(
                f"{len(x_test)} test instances but {given} {name}: give one for each, or one for all"
            )
    parts, selections = [], []
    for block in blocks(len(x_test), x_train.shape[-2] * x_train.shape[-1] if x_train.ndim > 1 else 1):
        per_problem = lambda x, rank: x[block] if x.ndim == rank else x  # noqa: B023, E731
        found = detect(
            x_test[block],
            per_problem(x_train, 3),
            k=k,
            threshold=per_problem(threshold, 1),
            metric=metric,
            features=features,
        )
        test = parse_against(
            against, candidates=found.candidates, n=found.x_train.shape[1], condition_on_k=condition_on_k
        )
        parts.append((found.selected, *_test_each_that_can_be(found, of_problems(covariance, block), test)))
        selections += test.selections(found)
    if not parts:
        raise InvalidInputError("there is no test instance")
    selected = np.concatenate([part[0] for part in parts])
    t = np.concatenate([part[1] for part in parts])
    p = np.concatenate([part[2] for part in parts])
    region = _stack_regions([part[3] for part in parts])
    reason = np.concatenate([part[4] for part in parts])
    return BatchResult(
        status=np.where(selected, np.where(reason != "", FAILED, TESTED), NOT_SELECTED),
        statistic=t,
        p_value=p,
        p_low=p,
        p_high=p,
        region=region,
        selection=selections,
        n_evaluations=selected.astype(np.int64),
        seconds=np.full(len(t), (time.perf_counter() - start) / len(t)),
        reason=reason,
    )


def _test_each_that_can_be(
    detections: Detections, covariance: CheckedCovariance, test: AgainstNeighbour | AgainstNeighbourhood
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.object_]]:
    """:func:`_test_all`, and why those problems of a batch failed that raise NumericalError alone, (B,); their
    p-values are NaN."""
    try:
        return *_test_all(detections, covariance, test), np.full(len(detections), "", object)
    except NumericalError as error:
        if len(detections) == 1:
            return (
                statistic(test.difference(detections), covariance, test.factor),
                np.full(1, np.nan),
                np.full((1, 1, 2), np.inf),
                np.array([str(error)], object),
            )
        # Rare: halving the batch isolates the few that fail.
        middle = len(detections) // 2
        halves = [
            _test_each_that_can_be(detections[half], of_problems(covariance, half), test)
            for half in (slice(None, middle), slice(middle, None))
        ]
        return (
            np.concatenate([t for t, *_ in halves]),
            np.concatenate([p for _, p, *_ in halves]),
            _stack_regions([region for _, _, region, _ in halves]),
            np.concatenate([reason for *_, reason in halves]),
        )


def _stack_regions(regions: list[NDArray]) -> NDArray[np.float64]:
    """Batches of regions (b_i, m_i, 2) one after the other, padded to the widest: (sum b_i, max m_i, 2)."""
    result = np.full((sum(map(len, regions)), max(region.shape[1] for region in regions), 2), np.inf)
    row = 0
    for region in regions:
        result[row : row + len(region), : region.shape[1]] = region
        row += len(region)
    return result


def _test_all(
    detections: Detections, covariance: CheckedCovariance, test: AgainstNeighbour | AgainstNeighbourhood
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Statistics (B,), p-values (B,) and regions of z (B, m, 2) of a batch; NaN and empty where nothing is selected."""
    selected = detections.selected
    t, p = np.full(len(detections), np.nan), np.full(len(detections), np.nan)
    region = np.full((len(detections), 1, 2), np.inf)
    # A covariance that is not one is an error whether or not anything was selected.
    everything, null = standardised(test.difference(detections), covariance, test.factor)
    if selected.any():
        t[selected] = everything[selected]
        z = test.region(detections[selected]) * t[selected, None, None]
        p[selected] = truncated_pvalue(t[selected], z, null=of_statistics(null, selected))
        region = np.full((len(detections), z.shape[1], 2), np.inf)
        region[selected] = z
    return t, p, region


def knn_test(
    x_test: ArrayLike,
    x_train: ArrayLike,
    *,
    k: int | Sequence[int],
    threshold: float,
    covariance: KnnCovariance,
    against: Against = "neighbour",
    metric: Metric = "l2",
    condition_on_k: bool = True,
    features: ArrayLike | Callable | None = None,
    train_features: ArrayLike | None = None,
    engine: "str | Lattice" = "exact",
    tolerance: Tolerance | Decision | float = TOLERANCE,
) -> TestResult:
    """Is the test instance, detected as an anomaly by its k nearest neighbours, truly different from them?

    Every instance is a signal plus normal noise with the given covariance. The null hypothesis is that the signal of
    x_test equals that of x_j, its k-th nearest training instance (``against="neighbour"``; Niihori et al., NeurIPS
    2025, Theorems 4.1 and 4.2), or the mean of the signals of its m nearest (``against="neighbourhood"`` or m), which
    has several times the power. The p-value is valid although the same data chose the neighbours and the decision to
    test: it conditions on them.

    Parameters
    ----------
    x_test : (d,) test instance; of any shape if features is a network.
    x_train : (n, d) normal training instances; (n, *x_test.shape).
    k : number of neighbours; or candidates, of which the one with the largest score is taken (data-driven k).
    threshold : the instance is an anomaly if its score log d_(k) - log(k)/D exceeds it. Must have been fixed without
        the instances under test.
    covariance : of the noise of one instance. If known: a variance, (d,) variances, or a (d, d) matrix, d =
        x_test.size. If estimated from rows of their own: :class:`~sigad.inference.estimated.EstimatedCovariance`, or
        ``EstimatedScale`` where all but a factor is known, for which the test is exact; a plug-in is not.
    against : ``"neighbour"``, the k-th; ``"neighbourhood"``, the mean of as many nearest as the largest candidate k;
        or their number m, fixed beforehand. For l1 and linf, features must be a network (``torch.nn.Identity()``).
    metric : distance between features, ``"l2"``, ``"l1"`` or ``"linf"``.
    condition_on_k : against the neighbour, condition also on the selected k (the paper's test); False takes the union
        over all candidates, a larger region and at least as powerful on the whole.
    features : None for the identity; a matrix (D, d) for linear features; a torch module in eval mode that maps
        (m, *shape) to m features of any shape, or :class:`~sigad.knn.network.NetworkFeatures` to set it up once for
        many tests.
    train_features : (n, D) features that NetworkFeatures gave for x_train, to compute them once for many tests.
    engine : for a network: "exact" follows one that is piecewise linear; "lattice", or a
        :class:`~sigad.inference.lattice.Lattice` with its settings, takes any (``docs/lattice.md``).
    tolerance : for a network, the search along the line stops when the bounds on the p-value are so close; a number is
        absolute.

    Returns
    -------
    TestResult
        with ``status`` "not_selected" when the instance is not an anomaly. ``selection`` is a
        :class:`~sigad.knn.detection.KnnSelection`, or a
        :class:`~sigad.knn.against.NeighbourhoodSelection`. Without a network the p-value is exact, ``p_low == p_high``.

    Raises
    ------
    InvalidInputError
        for NaN, shapes that do not fit, k out of range, or a covariance that is not positive definite.
    UnsupportedOperationError
        for a network with an operation that is not piecewise linear, by the exact engine; also where nothing is
        selected.
    NumericalError
        where the observation is a tie (:mod:`sigad.inference.ties`): the selected neighbour has a copy among the
        training instances, or distances or scores are equal because values are rounded. In a batch, such a problem has
        the status "failed".
    """
    x_test, x_train = real_array(x_test, "x_test"), real_array(x_train, "x_train")
    if not callable(features) and (x_test.ndim != 1 or x_train.ndim != 2):
        raise InvalidInputError(
            f"x_test must have shape (d,) and x_train (n, d), not {x_test.shape} and {x_train.shape}"
        )
    if np.ndim(threshold) != 0:
        raise InvalidInputError("threshold must be a number; knn_test_batch takes one per instance")
    result = knn_test_batch(
        x_test[None],
        x_train,
        k=k,
        threshold=threshold,
        covariance=covariance,
        against=against,
        metric=metric,
        condition_on_k=condition_on_k,
        features=features,
        train_features=train_features,
        engine=engine,
        tolerance=tolerance,
    )[0]
    if result.status == FAILED:
        raise NumericalError(result.reason)
    return result
