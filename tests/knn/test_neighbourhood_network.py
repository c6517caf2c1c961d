"""The neighbourhood test with network features, and with l1 and linf: regions against the detector along the line."""

import numpy as np
import pytest
import torch
from torch import nn

from sigad.errors import NumericalError
from sigad.inference import region as rg
from sigad.inference.exact import exact
from sigad.knn import knn_test, knn_test_batch
from sigad.knn.against import AgainstNeighbourhood
from sigad.knn.network import NeighbourhoodHypothesis, NetworkFeatures, detect_network
from tests.knn.test_network_regions import METRICS, bisected, random_problem, small_network

TOLERANCE = 1e-8


def selected_along(x_test, x_train, problem, z, t, nearest):
    """Whether the observed set and detection are found at each z: nothing but the definition."""
    m = len(nearest)
    e = (x_test - x_train[nearest].mean(axis=0)) / (1 + 1 / m)
    r = (z / t - 1).reshape(-1, *[1] * x_test.ndim)
    f = problem["features"]
    moving = {j: f(x_train[j] - r * e / m, batch_size=4096) for j in nearest}
    test = f(x_test + r * e, batch_size=4096)
    order = {"l2": 2, "l1": 1, "linf": np.inf}[problem["metric"]]
    away = [test - moving.get(i, f_i) for i, f_i in enumerate(problem["train_features"])]
    distance = np.stack([np.linalg.norm(a, ord=order, axis=-1) for a in away], axis=-1)
    ranking = np.argsort(distance, axis=-1, kind="stable")
    ks = np.array(problem["k"])
    with np.errstate(divide="ignore"):
        score = np.log(np.take_along_axis(distance, ranking[:, ks - 1], -1)) - np.log(ks) / test.shape[1]
    return (np.sort(ranking[:, :m]) == nearest).all(axis=1) & (score.max(axis=-1) > problem["threshold"])


def assert_region_is_exact(x_test, x_train, problem, m, points=600):
    found, shape, network = detect_network(x_test[None], x_train, **problem)
    if not found.selected[0]:  # all features are equal
        return None
    t = float(np.linalg.norm(AgainstNeighbourhood(m).difference(found)[0]) / np.sqrt(1 + 1 / m))
    hypothesis = NeighbourhoodHypothesis.of(network, found, 0, m, t, shape)
    result = exact(hypothesis, exhaustive=True)
    low, high = result.searched
    z = np.linspace(low, high, 40)
    np.testing.assert_array_equal(
        hypothesis.same(z), selected_along(x_test, x_train, problem, z, t, hypothesis.indices)
    )
    expected = bisected(hypothesis.same, np.unique([*np.linspace(low, high, points), t]))
    for end in expected.ravel():
        assert np.abs(result.region - end).min() <= TOLERANCE * max(1, end), (end, result.region, expected)
    ends = np.unique([low, high, t, *result.region.ravel()])
    ends = ends[np.append(True, np.diff(ends) > 4 * TOLERANCE)]
    middle = (ends[1:] + ends[:-1]) / 2
    np.testing.assert_array_equal(hypothesis.same(middle), rg.contains(result.region, middle))
    return result


@pytest.mark.parametrize("metric", METRICS)
def test_small_networks(metric):
    rng = np.random.default_rng(METRICS.index(metric))
    pieces = beyond = checked = 0
    while checked < 10:
        channels, size = int(rng.integers(1, 3)), int(rng.integers(5, 8))
        network = small_network(rng, channels, size, width=int(rng.integers(2, 6)))
        problem = random_problem(rng, network, (channels, size, size), metric)
        m = int(rng.integers(1, len(problem[1]) + 1))
        result = assert_region_is_exact(*problem, m)
        if result is None:
            continue
        checked += 1
        pieces += result.n_evaluations
        beyond += max(problem[2]["k"]) > m
    assert pieces > 10 * 20 and beyond >= 1


@pytest.mark.parametrize("metric", METRICS)
def test_linear_features_are_a_network_of_one_piece(metric):
    """Twenty problems with equal distances among them; for l2, the region is that of the closed form."""
    rng = np.random.default_rng((1, METRICS.index(metric)))
    checked = 0
    while checked < 20:
        n, d = int(rng.integers(2, 20)), int(rng.integers(1, 6))
        x_train, x_test = rng.normal(size=(n, d)), rng.normal(size=d)
        if checked % 3 == 0:
            x_train[rng.integers(n, size=n // 3)] = x_train[rng.integers(n)]
        k, m = sorted({1, int(rng.integers(1, n + 1))}), int(rng.integers(1, n + 1))
        features = NetworkFeatures(nn.Identity())
        problem = dict(k=k, metric=metric, features=features, train_features=features(x_train))
        seen, *_ = detect_network(x_test[None], x_train, threshold=-np.inf, **problem)
        problem["threshold"] = float(seen.score[0] - 0.3 * rng.exponential())
        try:
            found = assert_region_is_exact(x_test, x_train, problem, m)
        except NumericalError:  # copies: the selection holds at the observation only
            continue
        if metric == "l2":
            given = dict(k=k, threshold=problem["threshold"], covariance=1.0, against=m)
            closed = knn_test(x_test, x_train, **given).region
            np.testing.assert_allclose(rg.intersection(closed, [found.searched]), found.region, atol=1e-7)
        checked += 1


def test_the_call():
    """A network in a batch, with a matrix as features it equals the closed form."""
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(3, 5))
    layer = nn.Linear(5, 3, bias=False).double()
    layer.weight.data = torch.as_tensor(matrix)
    x_test, x_train = rng.normal(size=(4, 5)) + 2, rng.normal(size=(4, 12, 5))
    given = dict(k=[1, 2, 4], threshold=0.5, covariance=0.7, against="neighbourhood", tolerance=1e-9)
    closed = knn_test_batch(x_test, x_train, features=matrix, **given)
    searched = knn_test_batch(x_test, x_train, features=layer, **given)
    assert (closed.status == searched.status).all() and (closed.status == "tested").sum() >= 2
    assert [s.indices for s in closed.selection] == [s.indices for s in searched.selection]
    np.testing.assert_allclose(searched.p_value, closed.p_value, atol=1e-8)
