# ruff: noqa: B023, E731
"""The kNN test with network features as a whole: closed form, over-conditioned regions, errors, validity."""

import numpy as np
import pytest
import torch
from torch import nn

from sigad.errors import InvalidInputError, UnsupportedOperationError
from sigad.inference import region as rg
from sigad.inference.exact import exact
from sigad.inference.result import Tolerance
from sigad.inference.truncated import truncated_pvalue
from sigad.knn import detect, knn_test, knn_test_batch, order_region
from sigad.knn.network import NeighbourHypothesis, NetworkFeatures, detect_network
from sigad.study.rates import uniformity
from tests.knn.test_network_regions import METRICS, bisected, random_problem, selected_along, small_network


def as_module(matrix):
    linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(matrix))
    return linear


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("condition_on_k", [True, False])
def test_linear_networks_agree_with_the_closed_form(metric, condition_on_k):
    rng = np.random.default_rng(METRICS.index(metric))
    tested = 0
    for _ in range(12):
        n, d = int(rng.integers(3, 30)), int(rng.integers(1, 9))
        matrix = rng.normal(size=(int(rng.integers(1, 7)), d))
        k = sorted(rng.choice(np.arange(1, n + 1), size=min(n, 3), replace=False).tolist())
        x, x_train = rng.normal(size=d), rng.normal(size=(n, d))
        options = dict(k=k, threshold=-1.0, covariance=1.0, metric=metric, condition_on_k=condition_on_k)
        for network, features in ((nn.Flatten(), None), (as_module(matrix), matrix)):
            expected = knn_test(x, x_train, features=features, **options)
            found = knn_test(x, x_train, features=network, tolerance=Tolerance(0, 1e-7), **options)
            assert found.status == expected.status and found.selection[:2] == expected.selection[:2]
            if found.status == "tested":
                tested += 1
                assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
                assert found.p_value == pytest.approx(expected.p_value, rel=1e-6)
                assert found.p_low <= expected.p_value * (1 + 1e-7) and expected.p_value <= found.p_high * (1 + 1e-7)
                inside = [[found.region.min(), min(found.region.max(), expected.statistic + 6)]]
                np.testing.assert_allclose(
                    rg.intersection(found.region, inside), rg.intersection(expected.region, inside), rtol=1e-8
                )
    assert tested > 10


def test_bounds_hold_the_exhaustive_p_value():
    rng = np.random.default_rng(7)
    for _ in range(6):
        x, x_train, problem = random_problem(rng, small_network(rng), (1, 6, 6), "l2", n=12)
        loose = knn_test(x, x_train, **problem, covariance=1.0, tolerance=Tolerance(1e-6, 0.2))
        tight = knn_test(x, x_train, **problem, covariance=1.0, tolerance=Tolerance(0, 1e-9))
        assert loose.p_low <= tight.p_value * (1 + 1e-8) and tight.p_value <= loose.p_high * (1 + 1e-8)
        assert tight.p_value == pytest.approx(
            truncated_pvalue(tight.statistic, tight.region, null=("chi", 36)), rel=1e-9
        )
        assert loose.n_evaluations <= tight.n_evaluations


def test_a_batch_with_shared_features_is_the_single_tests():
    rng = np.random.default_rng(8)
    network, x_train, x_test = small_network(rng), rng.normal(size=(15, 1, 6, 6)), rng.normal(size=(5, 1, 6, 6))
    covariance = np.diag(rng.uniform(0.5, 2, size=36))
    options = dict(k=[1, 3, 5], threshold=-1.5, covariance=covariance, metric="l2")
    features = NetworkFeatures(network)
    batch = knn_test_batch(x_test, x_train, features=features, train_features=features(x_train), **options)
    for x, of_batch in zip(x_test, batch, strict=True):
        alone = knn_test(x, x_train, features=network, **options)
        assert of_batch.status == alone.status
        assert of_batch.p_value == pytest.approx(alone.p_value, rel=1e-9, nan_ok=True)
    assert (batch.status == "tested").any() and (batch.seconds > 0).all()
    each = knn_test_batch(x_test, np.broadcast_to(x_train, (5, *x_train.shape)), features=features, **options)
    np.testing.assert_allclose(each.p_value, batch.p_value, rtol=1e-9)


def test_nothing_is_selected():
    rng = np.random.default_rng(9)
    result = knn_test(
        rng.normal(size=(1, 6, 6)),
        rng.normal(size=(9, 1, 6, 6)),
        k=2,
        threshold=50.0,
        features=small_network(rng),
        covariance=1.0,
    )
    assert result.status == "not_selected" and np.isnan(result.p_value) and len(result.region) == 0


def pair_of(problem):
    x_test, x_train, options = problem
    found, shape, network = detect_network(x_test[None], x_train, **options)
    t = float(np.linalg.norm(found.difference[0]) / np.sqrt(2))
    return NeighbourHypothesis.of(network, found, 0, t, shape), found, t


@pytest.mark.parametrize("metric", METRICS)
def test_over_conditioned_regions(metric):
    """OpA1 is the piece on which the network is linear; w/o-pp lies in it, in the region, and keeps the order."""
    rng = np.random.default_rng(10 + METRICS.index(metric))
    for _ in range(8):
        network = small_network(rng)
        problem = random_problem(rng, network, (1, 6, 6), metric, n=12)
        options = problem[2]
        pair, found, t = pair_of(problem)
        ((low, high),) = pair.piece_region()
        assert low <= t <= high
        # Linear within the piece, on both sides; not linear across its ends.
        features = options["features"]
        for sign in (1, -1):
            at = lambda z: features(pair.middle + sign * z.reshape(-1, 1, 1, 1) * pair.direction)
            inner = at(np.linspace(low, high, 5))
            np.testing.assert_allclose(np.diff(inner, n=2, axis=0), 0, atol=1e-9 * np.abs(inner).max())
        ((a, b),) = pair.order_region()
        assert low <= a < t < b <= high
        full = exact(pair, exhaustive=True).region
        np.testing.assert_allclose(rg.intersection(full, [[a, b]]), [[a, b]], rtol=1e-9)
        # The order of the nearest instances stays, and changes, or something else does, behind either end.
        middle, step = pair.middle, pair.direction
        ranking = lambda z: _ranking(features, middle, step, options, found.index[0], z)[: options["k"][-1]]
        observed = ranking(t)
        for z in np.linspace(a, b, 9)[1:-1]:
            np.testing.assert_array_equal(ranking(z), observed)


@pytest.mark.parametrize("metric", METRICS)
def test_of_linear_features_the_order_is_that_of_the_closed_form(metric):
    rng = np.random.default_rng(30 + METRICS.index(metric))
    features = NetworkFeatures(nn.Identity())
    for _ in range(25):
        x_test, x_train = rng.normal(size=3), rng.normal(size=(12, 3))
        options = dict(k=[1, 2, 5], threshold=-3.0, metric=metric)
        found, shape, network = detect_network(x_test[None], x_train, features=features, **options)
        t = float(np.linalg.norm(found.difference[0]) / np.sqrt(2))
        pair = NeighbourHypothesis.of(network, found, 0, t, shape)
        expected = t * order_region(detect(x_test[None], x_train, **options))[0]
        np.testing.assert_allclose(pair.order_region(), rg.intersection(expected, [pair.reach]), rtol=1e-9)


def _ranking(features, middle, step, options, j, z):
    a, b = features(np.stack([middle + z * step, middle - z * step]))
    others = options["train_features"].copy()
    others[j] = b
    order = {"l2": 2, "l1": 1, "linf": np.inf}[options["metric"]]
    return np.argsort(np.linalg.norm(a - others, ord=order, axis=-1), kind="stable")


@pytest.mark.parametrize("metric", METRICS)
def test_linearised_region_is_that_of_the_linear_network(metric):
    rng = np.random.default_rng(20 + METRICS.index(metric))
    for _ in range(5):
        problem = random_problem(rng, small_network(rng), (1, 6, 6), metric, n=10)
        x_test, x_train, options = problem
        pair, found, t = pair_of(problem)
        # The features that the tangents at the observation give, for the definition to work on.
        eps = 1e-6 * np.ptp(pair.piece())
        f = options["features"]
        ends = lambda sign: f(np.stack([pair.middle + sign * z * pair.direction for z in (t - eps, t + eps)]))
        tangents = [(e.mean(axis=0), (e[1] - e[0]) / (2 * eps)) for e in (ends(1), ends(-1))]

        def linear(x, batch_size=None, middle=pair.middle, direction=pair.direction, tangents=tangents, t=t):
            z = ((x - middle) * direction).sum(axis=(1, 2, 3)) / np.square(direction).sum()
            (a, b), z = tangents[0 if z.mean() > 0 else 1], np.abs(z)
            return a + (z - t)[:, None] * b

        linearised = {**options, "features": linear}
        at = lambda z: selected_along(
            x_test,
            x_train,
            linearised,
            z,
            t,
            found.index[0],
            found.k[0],
            condition_on_k=True,
        )
        grid = np.unique([*np.linspace(1e-3, t + 10, 3000), t])
        expected, region = bisected(at, grid), pair.linearised_region()
        for end in expected.ravel()[1:-1]:
            assert np.abs(region - end).min() < 1e-5 * max(1, end)


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), InvalidInputError, r"eval\(\)"),
        (nn.Sequential(nn.Flatten(), nn.Softmax(-1)), UnsupportedOperationError, "softmax"),
        (lambda x: x, InvalidInputError, "torch.nn.Module"),
    ],
)
def test_errors(network, error, message):
    rng = np.random.default_rng(1)
    with pytest.raises(error, match=message):
        knn_test(
            rng.normal(size=(1, 6, 6)),
            rng.normal(size=(9, 1, 6, 6)),
            k=2,
            threshold=-50.0,
            features=network,
            covariance=1.0,
        )


def test_features_that_do_not_belong_to_the_training_instances():
    rng = np.random.default_rng(1)
    x, x_train, features = rng.normal(size=(1, 6, 6)), rng.normal(size=(9, 1, 6, 6)), NetworkFeatures(nn.Flatten())
    with pytest.raises(InvalidInputError, match=r"train_features must be of shape \(9, 36\)"):
        knn_test(
            x, x_train, k=2, threshold=0.0, features=features, train_features=features(x_train[:5]), covariance=1.0
        )
    with pytest.raises(InvalidInputError, match="those of a network"):
        knn_test(
            x.ravel(), x_train.reshape(9, -1), k=2, threshold=0.0, train_features=features(x_train), covariance=1.0
        )


def test_p_values_are_uniform():
    """200 detected normal images: KS p below 1e-3 has that probability."""
    rng = np.random.default_rng(2)
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).eval()
    features = NetworkFeatures(network)
    p_values = []
    while len(p_values) < 200:
        x_train = rng.normal(size=(6, 1, 5, 5))
        result = knn_test(
            rng.normal(size=(1, 5, 5)),
            x_train,
            k=[1, 2, 3],
            threshold=-2.2,
            features=features,
            tolerance=Tolerance(0.01, 0.1),
            covariance=1.0,
        )
        if result.status == "tested":
            p_values.append(result.p_value)
    assert uniformity(p_values).ks_p_value > 1e-3


@pytest.mark.parametrize("against", ["neighbour", "neighbourhood"])
def test_a_first_layer_in_place_changes_neither_the_instances_nor_the_result(against):
    rng = np.random.default_rng(5)
    x, x_train = np.array([0.7, -0.4, 1.1]), rng.normal(size=(10, 3))
    kept = x.copy(), x_train.copy()
    how = dict(k=3, threshold=-9.0, covariance=1.0, against=against)
    torch.manual_seed(0)
    rest = nn.Linear(3, 4).double()
    in_place, out_of_place = (nn.Sequential(nn.ReLU(inplace=b), rest).eval() for b in (True, False))
    expected = knn_test(x, x_train, features=out_of_place, **how)
    assert expected.status == "tested"
    for make in (np.asarray, torch.from_numpy):
        found = knn_test(make(x), make(x_train), features=in_place, **how)
        assert found.p_value == expected.p_value and found.selection == expected.selection
        np.testing.assert_array_equal(x, kept[0])
        np.testing.assert_array_equal(x_train, kept[1])
