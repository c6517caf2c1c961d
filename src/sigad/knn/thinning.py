"""The kNN test by Gaussian thinning: any features, no region (:mod:`sigad.inference.thinning`)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sigad.checks import real_array
from sigad.errors import InvalidInputError
from sigad.inference.region import EMPTY, WHOLE_LINE
from sigad.inference.result import NOT_SELECTED, TESTED, TestResult
from sigad.inference.thinning import thin
from sigad.inference.ties import require_no_copies
from sigad.inference.truncated import truncated_pvalue
from sigad.knn.against import Against, parse_against
from sigad.knn.covariance import statistic
from sigad.knn.detection import Metric, detect, detect_features


def thinned_knn_test(
    x_test: ArrayLike,
    x_train: ArrayLike,
    *,
    k: int | Sequence[int],
    threshold: float,
    covariance: ArrayLike,
    tau: float,
    rng: np.random.Generator,
    against: Against = "neighbour",
    metric: Metric = "l2",
    features: ArrayLike | Callable | None = None,
) -> TestResult:
    """Is the instance, detected in noisier copies of the data, truly different from its neighbours there?

    The detector sees x + tau w of the test instance and of every training instance, each with noise w of its own; the
    difference to the neighbours that it selects is tested on x - w/tau, which is independent of all it saw: a chi test,
    exact for a known covariance, any metric and any features.

    Parameters
    ----------
    x_test : (*shape) test instance, of d numbers.
    x_train : (n, *shape) normal training instances.
    k, against, metric : as in :func:`sigad.knn.knn_test`.
    threshold : of the score, fixed beforehand; best on data of the detector's (1 + tau^2) times the noise.
    covariance : of the noise of one instance, known: a variance, (d,) variances or a (d, d) matrix.
    tau, rng : as in :func:`sigad.inference.thinning.thin`.
    features : None for the identity; a matrix (D, d); or any function of instances (m, *shape) to features (m, D), such
        as :class:`~sigad.knn.network.NetworkFeatures`, which need not be piecewise linear here.

    Returns
    -------
    TestResult
        with ``status`` "not_selected" when the noisier instance is not an anomaly. The p-value is exact.

    Raises
    ------
    InvalidInputError
        for NaN, shapes that do not fit, k out of range, or a covariance that is not positive definite.
    NumericalError
        where the test instance, or one with which it is compared, has a copy among the instances: the detector sees the
        copy with a noise of its own, so that it learns about the half that is tested.
    """
    started = time.perf_counter()
    x_test, x_train = real_array(x_test, "x_test"), real_array(x_train, "x_train")
    if x_train.ndim < 2 or x_train.shape[1:] != x_test.shape:
        raise InvalidInputError(f"x_train must hold instances like x_test, {x_test.shape}; not {x_train.shape}")
    instances = np.concatenate([x_test[None], x_train])
    halves = thin(instances.reshape(len(instances), -1), covariance, tau=tau, rng=rng)
    seen, tested = halves.detection, halves.test
    options = {"k": k, "threshold": threshold, "metric": metric}
    if callable(features):
        mapped = real_array(features(seen.reshape(instances.shape)), "features")
        if mapped.ndim != 2 or len(mapped) != len(seen):
            raise InvalidInputError(f"features must map {len(seen)} instances to ({len(seen)}, D), not {mapped.shape}")
        found = detect_features(seen[:1], seen[None, 1:], mapped[:1], mapped[None, 1:], **options)
    else:
        found = detect(seen[:1], seen[1:], features=features, **options)
    test = parse_against(against, candidates=found.candidates, n=len(x_train), condition_on_k=True)
    # The neighbours that were selected, and the instances as the detector did not see them.
    difference = test.difference(replace(found, x_test=tested[:1], x_train=tested[None, 1:]))
    t = float(statistic(difference, halves.test_variance * real_array(covariance, "covariance"), test.factor)[0])
    selected = bool(found.selected[0])
    if selected:
        require_no_copies(instances, [0, *(1 + test.compared(found)[0])])
    p = float(truncated_pvalue(t, WHOLE_LINE, null=("chi", tested.shape[1]))) if selected else np.nan
    return TestResult(
        status=TESTED if selected else NOT_SELECTED,
        statistic=t if selected else np.nan,
        p_value=p,
        p_low=p,
        p_high=p,
        region=WHOLE_LINE if selected else EMPTY,
        selection=test.selections(found)[0],
        n_evaluations=1,
        seconds=time.perf_counter() - started,
    )
