"""Truncation regions in closed form against the detector itself, evaluated along the line."""

import numpy as np
import pytest

from sigad.errors import NumericalError
from sigad.inference import region as rg
from sigad.knn import detect, knn_test, order_region, selection_region
from tests.knn import brute_force

METRICS = ("l2", "l1", "linf")
TOP = 6.0
TOLERANCE = 1e-8


def random_problem(rng, metric):
    """Test instance, training instances, candidates, features, threshold just below the observed score."""
    d = int(rng.integers(1, 31)) if rng.random() < 0.5 else int(rng.integers(1, 4))  # small d: lam <= 1/2
    n = int(rng.integers(1, 40))
    number = 1 if rng.random() < 0.3 else min(n, int(rng.integers(2, 7)))
    candidates = sorted(rng.choice(np.arange(1, n + 1), size=number, replace=False).tolist())
    if rng.random() < 0.1:
        candidates[-1] = n
    x_train = rng.normal(size=(n, d))
    x_test = rng.normal(size=d) + 2 * (rng.random() < 0.5) * np.eye(d)[0]
    kind = rng.integers(6)
    if kind == 0:  # duplicates anywhere
        x_train[rng.integers(n, size=n // 3)] = x_train[rng.integers(n)]
    elif kind == 1 and n > 1:  # the test instance is one of the training instances
        x_test = x_train[rng.integers(n)].copy()
        candidates = sorted({max(k, 2) for k in candidates})
    features = rng.normal(size=(int(rng.integers(1, 7)), d)) if rng.random() < 0.2 else None
    seen = detect(x_test[None], x_train, k=candidates, threshold=-np.inf, metric=metric, features=features)
    threshold = float(seen.score[0] - rng.exponential()) if rng.random() < 0.8 else -np.inf
    if kind == 2 and n > candidates[-1]:  # a copy of the selected neighbour, before or after it
        other = (int(seen.index[0]) + rng.choice([-1, 1])) % n
        x_train[other] = x_train[seen.index[0]]
    return dict(x_test=x_test, x_train=x_train, k=candidates, metric=metric, features=features, threshold=threshold)


def selected_along(problem, detections, r, *, condition_on_k):
    """Whether the observed selection is made at each r; nothing but the definition."""
    k, j, score, _ = brute_force.selection_along(
        problem["x_test"],
        problem["x_train"],
        detections.index[0],
        r,
        candidates=problem["k"],
        metric=problem["metric"],
        features=problem["features"],
    )
    same = (j == detections.index[0]) & (score > problem["threshold"])
    return same & (k == detections.k[0]) if condition_on_k else same


def observed(problem):
    found = detect(**{name: np.asarray(v)[None] if name == "x_test" else v for name, v in problem.items()})
    return found if found.selected[0] else None


def is_tied(problem, detections):
    """Whether another instance is as far as the selected neighbour, or another k scores as much, to rounding; or the
    test instance is a training instance."""
    x_train, features = problem["x_train"], problem["features"]
    if (x_train == problem["x_test"]).all(axis=-1).any():
        return True
    f = (lambda x: x) if features is None else (lambda x: x @ features.T)
    order = {"l2": 2, "l1": 1, "linf": np.inf}[problem["metric"]]
    distance = np.linalg.norm(f(problem["x_test"]) - f(x_train), ord=order, axis=-1)
    ks, d = np.array(problem["k"]), f(x_train).shape[-1]
    with np.errstate(divide="ignore"):
        score = np.log(np.sort(distance)[ks - 1]) - np.log(ks) / d
    equal_scores = np.isclose(score, score.max(), rtol=0, atol=1e-12).sum() > 1
    j = detections.index[0]
    return np.isclose(distance, distance[j], rtol=1e-12, atol=0).sum() > 1 or equal_scores


def assert_same_region(problem, detections, region, *, condition_on_k):
    """Every end point that the grid finds is an end point of the region, and every other one, which the grid's spacing
    may have missed, is one as well: the definition agrees with the region between all neighbouring end points."""
    expected = brute_force.region(**problem, condition_on_k=condition_on_k, top=TOP, points=1200)
    found = rg.intersection(region[region[:, 0] < region[:, 1]], [[0, TOP]])
    for end in expected.ravel():
        assert np.abs(found - end).min() <= TOLERANCE, (problem, end, found, expected)
    ends = np.concatenate([[0.0], found.ravel(), [TOP]])
    middle = 0.5 * (ends[1:] + ends[:-1])
    real = np.diff(ends) > 1e-11
    if len(expected) != len(found):
        # Not only the middle of an interval or a gap that is narrower than the grid's spacing, but close to its ends.
        near = np.concatenate([ends[:-1] + 0.01 * np.diff(ends), ends[1:] - 0.01 * np.diff(ends)])
        middle, real = np.concatenate([middle, near]), np.tile(real, 3)
    middle = middle[real]
    np.testing.assert_array_equal(
        rg.contains(found, middle), selected_along(problem, detections, middle, condition_on_k=condition_on_k)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("metric", METRICS)
def test_region_equals_brute_force(metric, seed):
    rng = np.random.default_rng((seed, METRICS.index(metric)))
    checked, several, small, tied = 0, 0, 0, 0
    for _ in range(90):
        problem = random_problem(rng, metric)
        detections = observed(problem)
        if detections is None:  # the selected neighbour, duplicated, has pushed the score below the threshold
            continue
        for condition_on_k in (True, False):
            try:
                region = selection_region(detections, condition_on_k=condition_on_k)[0]
            except NumericalError:
                assert is_tied(problem, detections)
                tied += 1
                continue
            assert not is_tied(problem, detections) and rg.contains(region, 1.0)
            assert_same_region(problem, detections, region, condition_on_k=condition_on_k)
            checked += 1
            several += len(rg.as_region(region)) > 1
        dimension = detections.f_test.shape[-1]
        small += any((k / detections.k[0]) ** (1 / dimension) <= 0.5 for k in problem["k"])
    assert checked >= 90 and several >= 4 and small >= 4 and tied >= 4


@pytest.mark.parametrize("metric", METRICS)
def test_order_region(metric):
    """w/o-pp: one interval, around the observation, inside the region of the test."""
    rng = np.random.default_rng((9, METRICS.index(metric)))
    compared = 0
    for _ in range(120):
        problem = random_problem(rng, metric)
        detections = observed(problem)
        if detections is None:
            continue
        instances = np.concatenate([problem["x_test"][None], problem["x_train"]])
        with_copies = len(np.unique(instances, axis=0)) < len(instances)
        try:
            full, region = selection_region(detections), order_region(detections)
        except NumericalError:
            assert with_copies  # the order holds at the single point r = 1 only
            continue
        assert region.shape == (1, 1, 2)
        low, high = region[0, 0]
        assert low <= 1 <= high
        np.testing.assert_allclose(rg.intersection(region, full), region, rtol=0, atol=1e-12)
        if with_copies:
            continue
        expected = rg.component(brute_force.region(**problem, order=True, top=TOP, points=1200), 1.0)[0]
        if metric == "l2":  # exactly the largest interval with the same order
            np.testing.assert_allclose(np.minimum(region[0, 0], TOP), expected, atol=TOLERANCE)
        else:  # the linear piece of the distances is fixed as well
            assert low >= expected[0] - TOLERANCE and min(high, TOP) <= expected[1] + TOLERANCE
        compared += 1
    assert compared >= 50


@pytest.mark.parametrize("metric", METRICS)
def test_an_order_that_changes_at_the_observation_is_an_error(metric):
    """Two instances before the neighbour are equally close: the selection tells nothing of their order."""
    detections = detect(
        np.zeros((1, 2)), np.array([[1.0, 0], [0, 1], [0, 2], [5, 5]]), k=3, threshold=-9, metric=metric
    )
    assert selection_region(detections)[0, 0, 0] < 1
    with pytest.raises(NumericalError, match="end point"):
        order_region(detections)


def test_lam_exactly_one_half():
    """D = 1, k = 2k': where the crossing changes its kind, whichever way lam is rounded."""
    rng = np.random.default_rng(3)
    for metric in METRICS:
        for candidates in ([1, 2], [3, 6], [2, 4, 8], [5, 10]):
            for _ in range(10):
                problem = dict(
                    x_test=rng.normal(size=1),
                    x_train=rng.normal(size=(12, 1)),
                    k=candidates,
                    metric=metric,
                    features=None,
                    threshold=-8.0,
                )
                detections = observed(problem)
                for condition_on_k in (True, False):
                    region = selection_region(detections, condition_on_k=condition_on_k)[0]
                    assert_same_region(problem, detections, region, condition_on_k=condition_on_k)


@pytest.mark.parametrize("metric", METRICS)
def test_lattice_with_many_exact_ties(metric):
    """Instances on a coarse lattice: equal distances everywhere, kinks of l1 and linf that coincide."""
    rng = np.random.default_rng(4)
    checked = tied = 0
    for _ in range(400):
        d = int(rng.integers(2, 5))
        problem = dict(
            x_test=rng.integers(-2, 3, size=d) + 0.5 * rng.integers(0, 2),
            x_train=rng.integers(-2, 3, size=(12, d)).astype(float),
            k=[1, 3, 5],
            metric=metric,
            features=None,
            threshold=-3.0,
        )
        detections = observed(problem)
        if detections is None:
            continue
        for condition_on_k in (True, False):
            try:
                region = selection_region(detections, condition_on_k=condition_on_k)[0]
            except NumericalError:
                assert is_tied(problem, detections)
                tied += 1
                continue
            assert not is_tied(problem, detections) and rg.contains(region, 1.0)
            middle = 0.5 * (region[:, 0] + np.minimum(region[:, 1], TOP))[np.diff(region)[:, 0] > 1e-9]
            assert selected_along(problem, detections, middle, condition_on_k=condition_on_k).all()
            checked += 1
    assert checked >= 10 and tied >= 100


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_copies_of_the_selected_neighbour_are_an_error(k, copies):
    """The first, the middle, the last one of equal instances: the observation is an end point of the region."""
    x_train = np.array([[1.0, 0.0]] * (1 + copies) + [[5.0, 5.0]])
    if k > 1 + copies:
        assert knn_test([0.0, 0.0], x_train, k=k, threshold=-np.inf, covariance=1.0).status == "tested"
        return
    with pytest.raises(NumericalError, match="remove copies"):
        knn_test([0.0, 0.0], x_train, k=k, threshold=-np.inf, covariance=1.0)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e8])
def test_a_tie_is_a_tie_wherever_the_data_are(offset):
    """Rounding grows with the offset, and with it the distance from which an end point is told."""
    rng = np.random.default_rng(12)
    for metric in METRICS:
        for _ in range(20):
            x_train = offset + rng.normal(size=(10, 3))
            x_test = offset + rng.normal(size=3)
            x_train[rng.integers(10)] += 100
            untied = knn_test(x_test, x_train, k=3, threshold=-9.0, covariance=1.0, metric=metric)
            assert 0 < untied.p_value < 1
            far = np.abs(x_train - x_test).min(axis=1).argmax()  # none of the four nearest
            x_train[far] = x_train[untied.selection.index]
            for k in (3, 4):
                with pytest.raises(NumericalError, match="remove copies"):
                    knn_test(x_test, x_train, k=k, threshold=-9.0, covariance=1.0, metric=metric)


def test_more_conditioning_means_a_smaller_region():
    rng = np.random.default_rng(5)
    x_test, x_train = rng.normal(size=(200, 6)), rng.normal(size=(200, 30, 6))
    detections = detect(x_test, x_train, k=[1, 2, 5, 9], threshold=-1.0)
    detections = detections[detections.selected]
    small, large = selection_region(detections), selection_region(detections, condition_on_k=False)
    assert len(detections) > 150
    np.testing.assert_allclose(rg.intersection(small, large), small, rtol=1e-12)
    assert (rg.length(rg.intersection(large, [[[0, 9.0]]] * len(large))) > rg.length(small) + 1e-3).any()


@pytest.mark.parametrize("metric", METRICS)
def test_n_equals_k(metric):
    """All instances are neighbours: nothing bounds j's rank from above."""
    rng = np.random.default_rng(6)
    for n in (1, 2, 5):
        for d in (1, 4):
            problem = dict(
                x_test=rng.normal(size=d),
                x_train=rng.normal(size=(n, d)),
                k=[n],
                metric=metric,
                features=None,
                threshold=-4.0,
            )
            detections = observed(problem)
            region = selection_region(detections)[0]
            assert region[-1, 1] == np.inf
            assert_same_region(problem, detections, region, condition_on_k=True)
