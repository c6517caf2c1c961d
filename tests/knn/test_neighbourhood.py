"""The neighbourhood test: its closed-form region against the detector itself along the line, its law, its limits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sigad.errors import InvalidInputError, NumericalError, UnsupportedOperationError
from sigad.inference import region as rg
from sigad.knn import detect, knn_test, knn_test_batch, selection_region
from sigad.knn.against import AgainstNeighbourhood
from sigad.knn.detection import norm
from sigad.knn.neighbourhood import members, neighbourhood_region
from sigad.study.rates import uniformity

TOP = 6.0
TOLERANCE = 1e-8


def selected_along(problem, m, r):
    """Whether at each r the detector finds the observed set of the m nearest and an anomaly: nothing but the
    definition, with each instance moved, its features computed anew and all distances sorted."""
    x, train, features = problem["x_test"], problem["x_train"], problem["features"]

    def run(x, train):
        f, g = (x, train) if features is None else (x @ features.T, train @ features.T)
        distance = np.linalg.norm(f[:, None, :] - g, axis=-1)
        order = np.argsort(distance, axis=-1, kind="stable")
        ks = np.array(problem["k"])
        with np.errstate(divide="ignore"):
            score = np.log(np.take_along_axis(distance, order[:, ks - 1], axis=-1)) - np.log(ks) / f.shape[-1]
        return np.sort(order[:, :m], axis=-1), score.max(axis=-1)

    near = run(x[None], train[None])[0][0]
    e, v = x - train[near].mean(axis=0), 1 + 1 / m
    moved = np.broadcast_to(train, (len(r), *train.shape)).copy()
    step = (r - 1)[:, None] * e / v
    moved[:, near] -= step[:, None, :] / m
    sets, score = run(x + step, moved)
    return (sets == near).all(axis=-1) & (score > problem["threshold"])


def brute_force(problem, m, points=800):
    """Intervals of r in (0, TOP): a dense grid, and bisection of every change."""
    grid = np.unique(np.concatenate([np.linspace(0, TOP, points)[1:], [1.0], np.geomspace(1e-4, TOP, points // 4)]))
    inside = selected_along(problem, m, grid)
    change = np.nonzero(inside[1:] != inside[:-1])[0]
    low, high, at_low = grid[change].copy(), grid[change + 1].copy(), inside[change]
    for _ in range(60 if len(change) else 0):
        middle = (low + high) / 2
        keep = selected_along(problem, m, middle) == at_low
        low, high = np.where(keep, middle, low), np.where(keep, high, middle)
    return (low + high) / 2


def random_problem(rng):
    d = int(rng.integers(1, 31)) if rng.random() < 0.5 else int(rng.integers(1, 4))
    n = int(rng.integers(1, 40))
    m = int(rng.integers(1, n + 1)) if rng.random() < 0.5 else int(rng.integers(1, min(n, 8) + 1))
    number = 1 if rng.random() < 0.3 else min(n, int(rng.integers(2, 7)))
    candidates = sorted(rng.choice(np.arange(1, n + 1), size=number, replace=False).tolist())
    x_train = rng.normal(size=(n, d))
    x_test = rng.normal(size=d) + 2 * (rng.random() < 0.5) * np.eye(d)[0]
    kind = rng.integers(6)
    if kind == 0:  # duplicates anywhere
        x_train[rng.integers(n, size=n // 3)] = x_train[rng.integers(n)]
    elif kind == 1:  # the test instance is one of the training instances
        x_test = x_train[rng.integers(n)].copy()
    elif kind == 2:  # equal distances everywhere
        x_test, x_train = np.round(x_test), np.round(x_train)
    features = rng.normal(size=(int(rng.integers(1, 7)), d)) if rng.random() < 0.3 else None
    problem = dict(x_test=x_test, x_train=x_train, k=candidates, features=features)
    score = float(found(problem | {"threshold": -np.inf}).score[0])
    problem["threshold"] = score - rng.exponential() if rng.random() < 0.8 and np.isfinite(score) else -np.inf
    return problem, m


def found(problem):
    return detect(**(problem | {"x_test": problem["x_test"][None]}))


def test_region_equals_brute_force():
    """Every change that the grid finds is an end point, and between neighbouring end points the definition agrees."""
    rng = np.random.default_rng(0)
    checked = several = tied = beyond = refused = 0
    while checked < 600:
        problem, m = random_problem(rng)
        detections = found(problem)
        if not detections.selected[0]:  # all distances are zero
            continue
        inside = members(detections, m)
        distance = norm(detections.f_test[:, None] - detections.f_train, "l2")[0]
        assert set(np.flatnonzero(inside[0])) == set(np.argsort(distance, kind="stable")[:m])
        if np.abs(AgainstNeighbourhood(m).difference(detections)).max() < 1e-12:
            continue
        try:
            region = neighbourhood_region(detections, inside)[0]
        except NumericalError:
            # Only at an exchange of equal distances, of the test instance among the others, or of copies in the set.
            distance = np.sort(np.linalg.norm(detections.f_test[:, None] - detections.f_train, axis=-1)[0])
            exchange = m < len(distance) and np.isclose(distance[m - 1], distance[m], atol=0)
            nearest = problem["x_train"][inside[0]]
            copies = len(np.unique(nearest, axis=0)) < m
            refused += 1
            assert exchange or copies or (problem["x_train"] == problem["x_test"]).all(axis=-1).any()
            continue
        assert rg.contains(region, 1.0)
        region = rg.intersection(region[region[:, 0] < region[:, 1]], [[0, TOP]])
        for end in brute_force(problem, m):
            assert np.abs(region - end).min() <= TOLERANCE, (problem, m, end, region)
        ends = np.concatenate([[0.0], region.ravel(), [TOP]])
        width = np.diff(ends)
        points = np.concatenate([ends[:-1] + share * width for share in (0.01, 0.3, 0.5, 0.99)])
        points = points[np.tile(width > 1e-9, 4)]
        np.testing.assert_array_equal(rg.contains(region, points), selected_along(problem, m, points))
        checked += 1
        several += len(region) > 1
        tied += len(np.unique(problem["x_train"], axis=0)) < len(problem["x_train"])
        beyond += max(problem["k"]) > m
    assert several >= 3 and tied >= 20 and beyond >= 100 and refused >= 40


def test_of_one_neighbour_is_the_test_against_it():
    """m = k = 1: the papers' test against the nearest neighbour."""
    rng = np.random.default_rng(10)
    detections = detect(rng.normal(size=(200, 4)), rng.normal(size=(200, 30, 4)), k=1, threshold=0.2)
    detections = detections[detections.selected]
    assert len(detections) > 20
    np.testing.assert_allclose(
        neighbourhood_region(detections, members(detections, 1)), selection_region(detections), rtol=1e-9
    )


def test_uniform_and_powerful():
    """4,000 p-values of true null hypotheses are uniform (error probability 1e-4); of a shift by six, most are small,
    where few of those of the test against the neighbour are."""
    rng = np.random.default_rng(11)
    x_train, x_test = rng.normal(size=(9000, 30, 5)), rng.normal(size=(9000, 5))
    given = dict(k=[1, 2, 4], covariance=1.0)
    calibration = knn_test_batch(x_test[:1000], x_train[:1000], **given, threshold=np.inf)
    threshold = np.median([selection.score for selection in calibration.selection])
    given |= dict(x_train=x_train[1000:], threshold=threshold)
    result = knn_test_batch(x_test[1000:], against="neighbourhood", **given)
    p = result.p_value[result.status == "tested"]
    assert len(p) > 3700 and uniformity(p).ks_p_value > 1e-4
    few = dict(x_test=x_test[1000:1500] + 6 * np.eye(5)[0], **(given | {"x_train": x_train[1000:1500]}))
    power = {m: np.mean(knn_test_batch(**few, against=m).p_value <= 0.05) for m in ("neighbour", "neighbourhood")}
    assert power["neighbourhood"] > 0.6 > 2 * power["neighbour"]


@pytest.mark.parametrize("features", [None, torch.nn.Identity().eval()])
def test_a_copy_among_the_nearest_is_an_error(features):
    """The mean of copies varies more than that of as many instances. A copy among the others is none of them."""
    x_train = np.array([[1.0, 0], [0, 2], [1, 0], [4, 4], [4, 4]])
    given = dict(k=1, threshold=-9.0, covariance=1.0, features=features)
    for m in (2, 3):
        with pytest.raises(NumericalError, match=r"has a copy|is a copy"):
            knn_test([0.0, 0.3], x_train, against=m, **given)
    assert knn_test([0.0, 0.3], x_train[1:], against=2, **given).status == "tested"
    with pytest.raises(NumericalError, match="itself among"):
        knn_test([0.0, 2.0], x_train[1:], against=2, **(given | {"k": 2}))


def test_what_is_reported_and_what_is_refused():
    rng = np.random.default_rng(12)
    x_train, x_test = rng.normal(size=(20, 3)), rng.normal(size=3) + 4
    given = dict(k=[1, 3], threshold=-1.0, covariance=1.0)
    result = knn_test(x_test, x_train, against="neighbourhood", **given)
    nearest = np.argsort(np.linalg.norm(x_test - x_train, axis=1))[:3]
    assert result.selection.indices == tuple(sorted(nearest.tolist())) and result.p_low == result.p_high
    t = np.linalg.norm(x_test - x_train[nearest].mean(axis=0)) / np.sqrt(4 / 3)
    assert np.isclose(result.statistic, t, rtol=1e-14)
    assert result == replace(knn_test(x_test, x_train, against=3, **given), seconds=result.seconds)
    with pytest.raises(UnsupportedOperationError, match="features=torch"):
        knn_test(x_test, x_train, against=2, metric="l1", **given)
    for wrong in (0, 21, 1.5, "mean"):
        with pytest.raises(InvalidInputError, match="against must be"):
            knn_test(x_test, x_train, against=wrong, **given)
