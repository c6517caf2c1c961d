"""The kNN test as a whole: detection, statistic, equivalent formulations, batches, errors, and validity."""

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from sigad.errors import InvalidInputError
from sigad.inference import region as rg
from sigad.inference.result import BatchResult, TestResult
from sigad.inference.truncated import truncated_pvalue
from sigad.knn import detect, knn_test, knn_test_batch, scores, statistic

METRICS = ("l2", "l1", "linf")


def covariance_matrix(rng, d):
    root = rng.normal(size=(d, d + 2))
    return root @ root.T / d


def assert_same_result(a, b, rtol=1e-9):
    assert a.status == b.status and a.selection[:2] == b.selection[:2]
    np.testing.assert_allclose(a.statistic, b.statistic, rtol=rtol)
    np.testing.assert_allclose(a.p_value, b.p_value, rtol=rtol)
    np.testing.assert_allclose(a.region, b.region, rtol=rtol)


# --- detection ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_detection_equals_its_definition(metric):
    rng = np.random.default_rng(1)
    order = {"l2": 2, "l1": 1, "linf": np.inf}[metric]
    for _ in range(50):
        n, d = rng.integers(1, 30), rng.integers(1, 8)
        x_train, x_test = rng.integers(-2, 3, size=(n, d)).astype(float), rng.normal(size=d)
        candidates = sorted(rng.choice(np.arange(1, n + 1), size=min(n, 4), replace=False).tolist())
        distance = np.linalg.norm(x_test - x_train, ord=order, axis=-1)
        ranking = np.argsort(distance, kind="stable")
        a = [np.log(distance[ranking[k - 1]]) - np.log(k) / d for k in candidates]
        np.testing.assert_allclose(scores(distance, candidates, d), a, rtol=1e-12)
        k = candidates[int(np.argmax(a))]
        found = detect(x_test[None], x_train, k=candidates, threshold=max(a) - 1e-6, metric=metric)
        assert found.selections[0][:2] == (ranking[k - 1], k) and found.selected[0]
        assert found.score[0] == pytest.approx(max(a), rel=1e-12)
        assert not detect(x_test[None], x_train, k=candidates, threshold=max(a) + 1e-6, metric=metric).selected[0]


def test_not_selected():
    rng = np.random.default_rng(2)
    result = knn_test(rng.normal(size=3), rng.normal(size=(10, 3)), k=2, threshold=10.0, covariance=1.0)
    assert isinstance(result, TestResult) and result.status == "not_selected"
    assert np.isnan([result.statistic, result.p_value, result.p_low, result.p_high]).all()
    assert result.region.shape == (0, 2) and result.n_evaluations == 0
    # A test instance that equals its nearest neighbour has the score -inf, and is never an anomaly.
    x = rng.normal(size=(10, 3))
    assert knn_test(x[4], x, k=1, threshold=-np.inf, covariance=1.0).status == "not_selected"


# --- statistic and equivalent formulations ----------------------------------------------------------------------------


def test_statistic_equals_direct_whitening():
    rng = np.random.default_rng(3)
    for d in (1, 2, 7, 30):
        difference = rng.normal(size=(5, d))
        matrix = covariance_matrix(rng, d)
        white = difference @ linalg.inv(linalg.sqrtm(2 * matrix)).real.T
        np.testing.assert_allclose(statistic(difference, matrix), np.linalg.norm(white, axis=-1), rtol=1e-9)
        each = np.stack([covariance_matrix(rng, d) for _ in range(5)])
        expected = [np.sqrt(x @ linalg.solve(2 * c, x)) for x, c in zip(difference, each, strict=True)]
        np.testing.assert_allclose(statistic(difference, each), expected, rtol=1e-9)


def test_pvalue_follows_from_statistic_and_region():
    rng = np.random.default_rng(4)
    result = knn_test(
        rng.normal(size=5), rng.normal(size=(30, 5)), k=[1, 2, 5], threshold=-3.0, condition_on_k=False, covariance=1.0
    )
    expected = truncated_pvalue(result.statistic, result.region, null=("chi", 5))
    assert result.p_value == result.p_low == result.p_high == expected
    assert rg.contains(result.region, result.statistic) and result.seconds > 0 and result.n_evaluations == 1


@pytest.mark.parametrize("metric", METRICS)
def test_covariance_as_scalar_vector_matrix(metric):
    rng = np.random.default_rng(5)
    for d in (1, 4):
        x, x_train = rng.normal(size=d), rng.normal(size=(20, d))
        run = lambda c: knn_test(x, x_train, k=[1, 3], threshold=-9.0, covariance=c, metric=metric)  # noqa: B023, E731
        for same in (np.full(d, 0.7), 0.7 * np.eye(d)):
            assert_same_result(run(0.7), run(same))
        variances = rng.uniform(0.5, 2, size=d)
        assert_same_result(run(variances), run(np.diag(variances)))


@pytest.mark.parametrize("condition_on_k", [True, False])
def test_equivariance(condition_on_k):
    """Moving, rotating (l2), permuting and reflecting (all metrics), and scaling all instances changes nothing."""
    rng = np.random.default_rng(6)
    d, factor = 5, 3.7
    x, x_train, covariance = rng.normal(size=d), rng.normal(size=(25, d)), covariance_matrix(rng, d)
    rotation = linalg.qr(rng.normal(size=(d, d)))[0]
    reflection = np.eye(d)[rng.permutation(d)] * rng.choice([-1.0, 1.0], size=d)
    for metric in METRICS:
        shared = dict(k=[1, 2, 4, 8], metric=metric, condition_on_k=condition_on_k)
        first = knn_test(x, x_train, threshold=-1.5, covariance=covariance, **shared)
        assert first.status == "tested"
        for matrix in (np.eye(d), reflection, rotation)[: 3 if metric == "l2" else 2]:
            a, shift = factor * matrix, rng.normal(size=d)
            second = knn_test(
                x @ a.T + shift,
                x_train @ a.T + shift,
                threshold=-1.5 + np.log(factor),
                covariance=a @ covariance @ a.T,
                **shared,
            )
            assert_same_result(first, second)


@pytest.mark.parametrize("metric", METRICS)
def test_linear_features(metric):
    """Testing x with the features A x is testing A x itself when A is invertible: the line and T are the same."""
    rng = np.random.default_rng(7)
    d = 4
    x, x_train, covariance = rng.normal(size=d), rng.normal(size=(25, d)), covariance_matrix(rng, d)
    a = rng.normal(size=(d, d))
    shared = dict(k=[1, 2, 4], threshold=-4.0, metric=metric, condition_on_k=False)
    first = knn_test(x, x_train, covariance=covariance, features=a, **shared)
    second = knn_test(x @ a.T, x_train @ a.T, covariance=a @ covariance @ a.T, **shared)
    assert_same_result(first, second)
    shared["covariance"] = 1.0
    assert_same_result(knn_test(x, x_train, features=np.eye(d), **shared), knn_test(x, x_train, **shared))
    # Fewer features than dimensions: the chi distribution keeps d degrees of freedom.
    result = knn_test(x, x_train, features=a[:2], **shared)
    assert result.p_value == truncated_pvalue(result.statistic, result.region, null=("chi", d))


def test_order_of_training_instances_and_candidates_does_not_matter():
    rng = np.random.default_rng(8)
    x, x_train, order = rng.normal(size=3), rng.normal(size=(20, 3)), rng.permutation(20)
    first = knn_test(x, x_train, k=[1, 4, 2], threshold=-4.0, covariance=1.0)
    second = knn_test(x, x_train[order], k=(4, 2, 1), threshold=-4.0, covariance=1.0)
    assert (first.p_value, first.selection.index) == (second.p_value, order[second.selection.index])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("scale", "network"),
    [(1e-200, False), (1e-120, False), (1e150, False), (1e-120, True), (1e-30, True), (1e100, True)],
)
def test_data_of_any_magnitude(scale, network, metric):
    """Squares under- and overflow long before the data do; variances, which are squares too, are extreme at most."""
    rng = np.random.default_rng(14)
    x, x_train = rng.normal(size=4), rng.normal(size=(12, 4))
    shared = dict(k=[1, 3], metric=metric, features=torch.nn.Identity() if network else None, tolerance=1e-9)
    variance = min(max(scale, 1e-140), 1e140) ** 2
    expected = knn_test(x, x_train, threshold=-2.0, covariance=1.0, **shared)
    found = knn_test(scale * x, scale * x_train, threshold=-2.0 + np.log(scale), covariance=variance, **shared)
    assert expected.status == found.status == "tested" and found.selection[:2] == expected.selection[:2]
    unit = scale / np.sqrt(variance)
    assert found.statistic == pytest.approx(expected.statistic * unit, rel=1e-9)
    if unit == 1:
        assert found.p_value == pytest.approx(expected.p_value, rel=1e-7)


def test_distances_that_overflow_are_an_error():
    with pytest.raises(InvalidInputError, match="larger units"):
        knn_test([1e308, 0.0], [[-1e308, 0.0], [1.0, 1.0]], k=2, threshold=0.0, covariance=1.0)


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition_on_k", [True, False])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("d", "features"), [(1, None), (2, 7), (9, None), (20, 5)])
def test_results_do_not_depend_on_the_batch(metric, d, features, condition_on_k):
    """One by one, in batches of any size, and with a shared or an own training set: the same bytes."""
    rng = np.random.default_rng((9, d))
    b, n = 24, 40
    x, x_train = rng.normal(size=(b, d)), rng.normal(size=(b, n, d))
    x_train[:3] = x_train[0]
    shared = dict(
        k=(1, 2, 5, 9),
        metric=metric,
        covariance=covariance_matrix(rng, d),
        features=None if features is None else rng.normal(size=(features, d)),
        condition_on_k=condition_on_k,
    )
    seen = {name: shared[name] for name in ("k", "metric", "features")}
    score = detect(x, x_train, threshold=-np.inf, **seen).score
    threshold = score - rng.normal(0.5, 0.7, size=b)
    together = knn_test_batch(x, x_train, threshold=threshold, **shared)
    assert (
        isinstance(together, BatchResult) and len(together) == b and set(together.status) == {"tested", "not_selected"}
    )

    def same(result, i):
        expected = together[i]
        assert result.status == expected.status and result.selection == expected.selection
        for name in ("statistic", "p_value", "p_low", "p_high", "region"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))

    for size in (1, 5, 11):
        for start in range(0, b, size):
            part = slice(start, start + size)
            for i, result in enumerate(knn_test_batch(x[part], x_train[part], threshold=threshold[part], **shared)):
                same(result, start + i)
    for i in range(b):
        same(knn_test(x[i], x_train[i], threshold=threshold[i], **shared), i)
    for i, result in enumerate(knn_test_batch(x[:3], x_train[0], threshold=threshold[:3], **shared)):
        same(result, i)


def test_covariance_and_threshold_of_each_problem():
    rng = np.random.default_rng(10)
    b, n, d = 70, 100, 10  # more than one block
    x, x_train = rng.normal(size=(b, d)), rng.normal(size=(b, n, d))
    covariance, threshold = np.stack([covariance_matrix(rng, d) for _ in range(b)]), rng.normal(0.5, 0.3, size=b)
    together = knn_test_batch(x, x_train, k=range(1, 11), threshold=threshold, covariance=covariance)
    for i in range(b):
        single = knn_test(x[i], x_train[i], k=range(1, 11), threshold=threshold[i], covariance=covariance[i])
        np.testing.assert_array_equal(single.p_value, together.p_value[i])
        np.testing.assert_array_equal(single.region, together[i].region)


# --- errors -----------------------------------------------------------------------------------------------------------


def broken(**changes):
    rng = np.random.default_rng(11)
    arguments = dict(x_test=rng.normal(size=3), x_train=rng.normal(size=(8, 3)), k=2, threshold=-5.0, covariance=1.0)
    arguments.update(changes)
    return arguments.pop("x_test"), arguments.pop("x_train"), arguments


NAN_TRAIN = np.zeros((8, 3))
NAN_TRAIN[3, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(x_test=[0.0, np.nan, 1.0]), "remove or impute NaN"),
        (dict(x_test=[0.0, np.inf, 1.0]), "remove or impute"),
        (dict(x_train=NAN_TRAIN), "remove or impute NaN"),
        (dict(x_test=np.zeros(4)), "shapes"),
        (dict(x_test=np.zeros((1, 3))), r"x_test must have shape \(d,\)"),
        (dict(x_train=np.zeros(3)), r"x_train \(n, d\)"),
        (dict(k=9), "between 1 and the number of training instances"),
        (dict(k=[1, 9]), "there are n = 8"),
        (dict(k=0), "between 1 and"),
        (dict(k=-1), "between 1 and"),
        (dict(k=1.5), "whole number"),
        (dict(k=[2, 2]), "distinct"),
        (dict(k=[]), "whole number"),
        (dict(k="two"), "whole number"),
        (dict(k=np.nan), "whole number"),
        (dict(threshold=np.nan), "threshold"),
        (dict(threshold=[0.0]), "knn_test_batch takes one per instance"),
        (dict(metric="cosine"), "l2, l1, linf"),
        (dict(covariance=0.0), "variances must be positive"),
        (dict(covariance=-1.0), "variances must be positive"),
        (dict(covariance=[1.0, 0.0, 1.0]), "drop constant columns"),
        (dict(covariance=np.nan), "finite"),
        (dict(covariance=[1.0, 1.0]), r"scalar, \(3,\), \(3, 3\)"),
        (dict(covariance=np.eye(2)), r"scalar, \(3,\), \(3, 3\)"),
        (dict(covariance=np.ones((3, 3))), "positive definite"),
        (dict(covariance=np.diag([1.0, 1.0, -1.0])), "positive definite"),
        (dict(covariance=[[1.0, 0.5, 0], [0, 1.0, 0], [0, 0, 1.0]]), "symmetric"),
        (dict(features=np.eye(4)), r"shape \(D, 3\)"),
        (dict(features=np.full((2, 3), np.nan)), "features must be finite"),
    ],
)
def test_errors(changes, message):
    x_test, x_train, arguments = broken(**changes)
    with pytest.raises(InvalidInputError, match=message):
        knn_test(x_test, x_train, **arguments)


def test_errors_of_a_batch():
    with pytest.raises(InvalidInputError, match="matrix"):
        x_test, x_train, arguments = broken(features=lambda x: x)
        knn_test(x_test, x_train, **arguments)
    for too_many in (
        dict(x_train=np.zeros((3, 8, 3))),
        dict(threshold=[0.0, 0.0, 0.0]),
        dict(covariance=np.stack([np.eye(3)] * 3)),
    ):
        with pytest.raises(InvalidInputError, match=r"2 test instances but 3 .* give one for each"):
            knn_test_batch(
                np.ones((2, 3)),
                **{"x_train": np.zeros((8, 3)), "k": 1, "threshold": 0.0, "covariance": 1.0, **too_many},
            )
    with pytest.raises(InvalidInputError, match="no test instance"):
        knn_test_batch(np.zeros((0, 3)), np.zeros((8, 3)), k=1, threshold=0.0, covariance=1.0)
    with pytest.raises(InvalidInputError, match="knn_test takes a single instance"):
        knn_test_batch(np.zeros(3), np.zeros((8, 3)), k=1, threshold=0.0, covariance=1.0)


# --- validity ---------------------------------------------------------------------------------------------------------

TRIALS = 20_000


@pytest.mark.parametrize(
    ("k", "condition_on_k", "metric", "quantile", "n"),
    [
        (3, True, "l2", 0.8, 20),
        ((1, 2, 3, 5, 8), True, "l2", 0.8, 20),
        ((1, 2, 3, 5, 8), False, "l2", 0.8, 20),
        ((2, 5), True, "l1", 0.5, 10),
        ((2, 5), False, "linf", 0.5, 10),
    ],
)
def test_pvalues_are_uniform_under_the_null(k, condition_on_k, metric, quantile, n):
    """Kolmogorov-Smirnov over 20,000 selected null trials. A correct test fails with probability 1e-4 (seed fixed)."""
    rng = np.random.default_rng(12)
    d, scale = 3, np.array([0.5, 1.0, 2.0])
    draw = lambda *shape: scale * rng.normal(size=(*shape, d))  # noqa: E731
    held_out = detect(draw(5000), draw(5000, n), k=k, threshold=-np.inf, metric=metric)
    threshold = np.quantile(held_out.score, quantile)
    p = np.empty(0)
    while len(p) < TRIALS:
        result = knn_test_batch(
            draw(20_000),
            draw(20_000, n),
            k=k,
            threshold=threshold,
            covariance=scale**2,
            metric=metric,
            condition_on_k=condition_on_k,
        )
        p = np.concatenate([p, result.p_value[result.status == "tested"]])
    assert stats.kstest(p[:TRIALS], "uniform").pvalue > 1e-4


def spoiled(x, train, how):
    """Data whose law is not continuous, in place."""
    if how == "twice":
        train[:, 20:] = train[:, :20]
    elif how == "a few copies":
        train[:, :4] = train[:, 4:8]
    elif how == "test among them":
        train[:, 0] = x
    else:
        for values in (x, train):
            values[:] = np.round(values / float(how)) * float(how)


@pytest.mark.parametrize(
    ("how", "k", "metric"),
    [
        ("twice", 5, "l2"),
        ("a few copies", 5, "l2"),
        ("a few copies", (1, 2, 5), "l2"),
        ("a few copies", 5, "linf"),
        ("test among them", 5, "l2"),
        ("0.5", 5, "l2"),
        ("0.5", (1, 2, 5), "l1"),
        ("0.1", (1, 2, 5), "l2"),
    ],
)
def test_ties_do_not_raise_the_rate_of_type_1_errors(how, k, metric):
    """3,000 null trials. Those without a tie have p-values that are uniform, or (of rounded values) larger; a correct
    test exceeds 3.9 standard errors with probability 5e-5."""
    rng = np.random.default_rng(13)
    b = 3000
    x, train = rng.normal(size=(b, 3)), rng.normal(size=(b, 40, 3))
    spoiled(x, train, how)
    result = knn_test_batch(x, train, k=k, threshold=-0.3, covariance=1.0, metric=metric)
    p = result.p_value[result.status == "tested"]
    assert ((p > 0) & (p < 1)).all() and (result.status == "failed").any()
    assert np.isnan(result.p_value[result.status == "failed"]).all()
    if how in ("twice", "test among them"):
        assert len(p) == 0
        return
    assert len(p) > 200
    for level in (0.01, 0.05):
        bound = 3.9 * np.sqrt(level * (1 - level) / len(p))
        assert (p <= level).mean() < level + bound
        assert how != "a few copies" or (p <= level).mean() > level - bound


def test_one_problem_without_a_p_value_does_not_take_the_batch_with_it():
    rng = np.random.default_rng(0)
    x, train = rng.normal(size=(9, 3)), rng.normal(size=(9, 20, 3))
    train[4, 5] = train[4, 6] = train[4, 7]
    x[4] = train[4, 5] + [0.1, 0, 0]
    results = knn_test_batch(x, train, k=2, threshold=-np.inf, covariance=1.0)
    assert [result.status for result in results] == ["tested"] * 4 + ["failed"] + ["tested"] * 4
    assert np.isnan(results[4].p_value) and results[4].region.shape == (0, 2)
    assert "remove copies" in results[4].reason and results.reason[3] == results[3].reason == ""
    assert "remove copies" in repr(results[4])
    others = np.arange(9) != 4
    alone = knn_test_batch(x[others], train[others], k=2, threshold=-np.inf, covariance=1.0)
    np.testing.assert_array_equal(results.p_value[others], alone.p_value)
