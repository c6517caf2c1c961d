"""Truncation regions with network features against the detector itself, evaluated along the line by brute force."""

import numpy as np
import pytest
import torch
from torch import nn

from sigad.inference import region as rg
from sigad.inference.exact import exact
from sigad.knn import knn_test
from sigad.knn.network import NeighbourHypothesis, NetworkFeatures, detect_network
from sigad.knn.pieces import (
    Event,
    NeighbourhoodEvent,
    Pieces,
    _convex_roots,
    _quadratic_roots,
    _value_and_slopes,
    neighbourhood_region,
    selected_region,
)
from tests.real_data import cifar_resnet20, squeezenet

METRICS = ("l2", "l1", "linf")
TOLERANCE = 1e-8


class Residual(nn.Module):
    """conv, batch norm, ReLU, and a skip connection around it."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + torch.relu(self.norm(self.conv(x)))


def small_network(rng, channels=1, size=6, width=4):
    """A random CNN of a few kinds of layers, in eval mode, with batch norm statistics that are not the default."""
    torch.manual_seed(int(rng.integers(2**31)))
    layers = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    if rng.random() < 0.6:
        layers.append(Residual(width))
    layers.append([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.LeakyReLU(0.2), nn.MaxPool2d(3, 2, 1)][rng.integers(4)])
    if rng.random() < 0.5:
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    layers.append([nn.AdaptiveAvgPool2d(1), nn.Flatten()][rng.integers(2)])
    network = nn.Sequential(*layers)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return network.eval()


def random_problem(rng, network, shape, metric, n=None):
    """Instances, candidates and a threshold below the observed score, and what was detected."""
    n = int(rng.integers(2, 16)) if n is None else n
    number = 1 if rng.random() < 0.3 else min(n, int(rng.integers(2, 5)))
    k = sorted(rng.choice(np.arange(1, n + 1), size=number, replace=False).tolist())
    x_train, x_test = rng.normal(size=(n, *shape)), rng.normal(size=shape)
    features = NetworkFeatures(network)
    problem = dict(k=k, metric=metric, features=features, train_features=features(x_train))
    seen, *_ = detect_network(x_test[None], x_train, threshold=-np.inf, **problem)
    threshold = float(seen.score[0] - 0.3 * rng.exponential()) if rng.random() < 0.8 else -np.inf
    return x_test, x_train, problem | {"threshold": threshold}


def selected_along(x_test, x_train, problem, z, t, j, k, *, condition_on_k):
    """Whether the observed selection is made at each z; nothing but the definition."""
    middle, step = (x_test + x_train[j]) / 2, (x_test - x_train[j]) / (2 * t)
    z = z.reshape(-1, *[1] * x_test.ndim)
    f = problem["features"]
    a, b = f(middle + z * step, batch_size=4096), f(middle - z * step, batch_size=4096)
    order = {"l2": 2, "l1": 1, "linf": np.inf}[problem["metric"]]
    distance = np.stack(
        [
            np.linalg.norm(a - (b if i == j else f_i), ord=order, axis=-1)
            for i, f_i in enumerate(problem["train_features"])
        ],
        axis=-1,
    )
    ranking = np.argsort(distance, axis=-1, kind="stable")
    ks = np.array(problem["k"])
    with np.errstate(divide="ignore"):
        score = np.log(np.take_along_axis(distance, ranking[:, ks - 1], -1)) - np.log(ks) / a.shape[1]
    best = score.argmax(-1)
    rows = np.arange(len(a))
    same = (ranking[rows, ks[best] - 1] == j) & (score[rows, best] > problem["threshold"])
    return same & (ks[best] == k) if condition_on_k else same


def bisected(inside, grid):
    """The intervals within the grid on which a function is true, to rounding."""
    value = inside(grid)
    change = np.flatnonzero(value[1:] != value[:-1])
    low, high, at_low = grid[change].copy(), grid[change + 1].copy(), value[change]
    for _ in range(50 if len(change) else 0):
        middle = (low + high) / 2
        keep = inside(middle) == at_low
        low, high = np.where(keep, middle, low), np.where(keep, high, middle)
    ends = [*([grid[0]] if value[0] else []), *(low + high) / 2, *([grid[-1]] if value[-1] else [])]
    return np.reshape(ends, (-1, 2))


def assert_region_is_exact(x_test, x_train, problem, *, condition_on_k, points=800, scale=1.0):
    found, shape, network = detect_network(x_test[None], x_train, **problem)
    assert found.selected[0]
    t = float(np.linalg.norm(found.difference[0]) / np.sqrt(2) / scale)
    hypothesis = NeighbourHypothesis.of(network, found, 0, t, shape, condition_on_k=condition_on_k)
    result = exact(hypothesis, exhaustive=True)
    low, high = result.searched
    z = np.linspace(low, high, 50)
    direct = selected_along(x_test, x_train, problem, z, t, found.index[0], found.k[0], condition_on_k=condition_on_k)
    at = hypothesis.same
    np.testing.assert_array_equal(at(z), direct)
    expected = bisected(at, np.unique([*np.linspace(low, high, points), t]))
    for end in expected.ravel():
        assert np.abs(result.region - end).min() <= TOLERANCE * max(1, end), (end, result.region, expected)
    # Between any two neighbouring end points the definition agrees with the region.
    ends = np.unique([low, high, t, *result.region.ravel()])
    ends = ends[np.append(True, np.diff(ends) > 4 * TOLERANCE)]
    middle = (ends[1:] + ends[:-1]) / 2
    np.testing.assert_array_equal(at(middle), rg.contains(result.region, middle))
    return result


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("condition_on_k", [True, False])
def test_small_networks(metric, condition_on_k):
    """Nine random problems for each of six combinations: 54 in all."""
    rng = np.random.default_rng(METRICS.index(metric) * 2 + condition_on_k)
    pieces = intervals = 0
    for _ in range(9):
        channels, size = int(rng.integers(1, 3)), int(rng.integers(5, 8))
        network = small_network(rng, channels, size, width=int(rng.integers(2, 6)))
        problem = random_problem(rng, network, (channels, size, size), metric)
        result = assert_region_is_exact(*problem, condition_on_k=condition_on_k)
        pieces += result.n_evaluations
        intervals += len(result.region)
    assert pieces > 9 * 20 and intervals >= 9


class Hinge(nn.Module):
    def forward(self, x):
        return torch.relu(0.3 * x) + torch.relu(0.6 * x - 0.3) + 0.1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_ties_on_a_piece_that_begins_at_distance_zero(metric, offset):
    """Where all units are off, four instances and the neighbour have one and the same feature; from where the test
    instance leaves it, they are tied. In one dimension the metrics are the same, and an offset changes nothing."""
    network = nn.Sequential(Hinge(), nn.Linear(1, 1).double()).eval()
    network[1].weight.data[:], network[1].bias.data[:] = 1.0, offset
    x_train = np.array([-1.1, -2, -1, -1.3, 1.4])[:, None]
    found = knn_test(
        np.array([0.75]), x_train, k=3, threshold=-6, covariance=1.0, features=network, metric=metric, tolerance=0.0
    )
    assert found.p_value == pytest.approx(0.0821170668577, rel=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_networks_with_real_weights(seed):
    """Ten problems on real patches: SqueezeNet with ImageNet weights, ResNet-20 with CIFAR-10 weights."""
    from skimage import data

    rng = np.random.default_rng(seed)
    network = squeezenet("features.4") if seed % 2 else cifar_resnet20("layer1")
    textures = [data.brick(), data.grass(), data.gravel()]
    patch = lambda t: t[(slice(r := rng.integers(480), r + 16), slice(c := rng.integers(480), c + 16))]  # noqa: E731
    images = np.stack([patch(textures[seed % 3]) for _ in range(13)])[:, None].astype(float)
    images = images + rng.normal(scale=4, size=images.shape)
    features = NetworkFeatures(network)
    x_test, x_train = images[0], images[1:]
    problem = dict(k=[1, 2, 4], metric=METRICS[seed % 3], features=features, train_features=features(x_train))
    seen, *_ = detect_network(x_test[None], x_train, threshold=-np.inf, **problem)
    problem["threshold"] = float(seen.score[0] - 0.1)
    assert_region_is_exact(x_test, x_train, problem, condition_on_k=bool(seed % 4), points=100, scale=30.0)


@pytest.mark.parametrize("first", [0.0, 1e-17, -1e-17, 1e-300, -1e-300])
@pytest.mark.parametrize("seed", range(20))
def test_where_a_tie_begins_a_piece_the_quadratic_changes_sign_at_the_other_root(first, seed):
    rng = np.random.default_rng(seed)
    other, bend = rng.uniform(0.1, 0.9), rng.choice([-1, 1]) * rng.uniform(0.5, 2)
    # bend u (u - other), with a first value that is zero to rounding
    row, u, change = _quadratic_roots(np.array([[first]]), np.array([[bend * (1 - other)]]), np.array([bend]))
    inside = first < 0
    for z in (0.5 * other, 0.5 * (1 + other)):
        count = int(inside) + change[u <= z].sum()
        assert count == (bend * z * (z - other) < 0)
    assert np.abs(u - other).min() < 1e-12 and not row.any()


def test_quadratics_change_their_sign_where_they_do_and_nowhere_else():
    """Against all values on a grid: no change, one, or two inside, whose vertex is barely beyond zero or far."""
    rng, u = np.random.default_rng(5), np.linspace(0, 1, 2001)[1:-1]
    g0, g1 = rng.choice([-1, 1], (2, 60, 40)) * rng.uniform(0, 1, (2, 60, 40)) ** 2
    bend = rng.normal(size=60) * 4
    g1[:, ::4] = g0[:, ::4]  # a parabola of this bend reaches bend / 4 beyond its ends
    g0[:, ::8] = g1[:, ::8] = bend[:, None] * rng.uniform(0.24, 0.26, (60, 5))
    value = g0[..., None] + (g1 - g0 - bend[:, None])[..., None] * u + bend[:, None, None] * u**2
    row, at, change = _quadratic_roots(g0, g1, bend)
    assert ((at >= 0) & (at <= 1)).all()
    count = np.add.outer((g0 < 0).sum(axis=1), np.zeros(len(u), int))
    for r, x, c in zip(row, at, change, strict=True):
        count[r, u > x] += c
    clear = (np.abs(value) > 1e-9).all(axis=1)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(count[clear], (value < 0).sum(axis=1)[clear])


@pytest.mark.parametrize("metric", ["l1", "linf"])
def test_convex_functions_cross_where_they_do_and_nowhere_else(metric):
    """Differences of two distances, against all values on a grid: twice where both ends lie on one side, too; bends
    that are hardly any count."""
    rng, u = np.random.default_rng(6), np.linspace(0, 1, 1001)[1:-1]
    size, order = 300, {"l1": 1, "linf": np.inf}[metric]
    v, step, w, turn = rng.normal(size=(4, size, 4))
    v[::2, 2:], step[::2, 2:] = 1e-7 * v[::2, 2:], 1e-7 * step[::2, 2:]
    for x in (v, step, w, turn):  # many bends and ties at the ends and in the middle
        x[1::4] = np.round(2 * x[1::4])
    along = lambda x, y, t: np.linalg.norm(x[:, None] + t[:, None] * y[:, None], ord=order, axis=-1)  # noqa: E731
    gap = along(v, step, u) - along(w, turn, u)
    shift = np.array([rng.choice(row) for row in gap])  # crossed at least once

    def evaluate(which, t):
        far = _value_and_slopes(w[which] + t[:, None] * turn[which], turn[which], metric)
        near = _value_and_slopes(v[which] + t[:, None] * step[which], step[which], metric)
        return near, [far[0] + shift[which], *far[1:]]

    which, at, change = _convex_roots(evaluate, size)
    near, far = evaluate(which, at)
    np.testing.assert_allclose(near[0], far[0], rtol=0, atol=1e-11)
    count = np.repeat(along(v, step, np.zeros(1)) - along(w, turn, np.zeros(1)) < shift[:, None], len(u), axis=1) * 1
    for i, x, c in zip(which, at, change, strict=True):
        count[i, u > x] += c
    clear = np.abs(gap - shift[:, None]) > 1e-9
    np.testing.assert_array_equal(count[clear], (gap < shift[:, None])[clear])
    assert (np.bincount(which, minlength=size) >= 2).sum() > 30


def random_pieces(rng, metric, spread=1.0):
    """Breakpoints, features of three moving instances there and of others that do not move, and at points between."""
    k, n, d = rng.integers(1, 4), rng.integers(3, 12), rng.integers(1, 4)
    z = np.cumsum(rng.uniform(0.2, 1, k + 1))
    moving, train = rng.normal(size=(3, k + 1, d)), spread * rng.normal(size=(n, d))
    points = np.linspace(z[0], z[-1], 402)[1:-1]
    between = [np.stack([np.interp(points, z, f[:, i]) for i in range(d)], axis=1) for f in moving]
    order = {"l2": 2, "l1": 1, "linf": np.inf}[metric]
    distance = lambda f: np.linalg.norm(between[0] - f, ord=order, axis=-1)  # noqa: E731
    return z, moving, train, points, [distance(f) for f in between[1:]], np.stack([distance(f) for f in train], axis=1)


def assert_holds_where(region, doubtful, points, holds):
    """On a grid, but for where the condition changes between two of its points."""
    inner = np.append(True, holds[1:] == holds[:-1]) & np.append(holds[1:] == holds[:-1], True)
    np.testing.assert_array_equal(rg.contains(region, points)[inner], holds[inner])
    assert not len(doubtful)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("condition_on_k", [True, False])
def test_the_regions_of_pieces_are_their_definition(metric, condition_on_k):
    """Of any features that are linear along pieces, whether the selection was observed or not."""
    rng, found = np.random.default_rng((8, METRICS.index(metric))), 0
    for _ in range(120):
        z, moving, train, points, (to_j, _), others = random_pieces(rng, metric)
        n, d = train.shape
        ks = np.sort(rng.choice(np.arange(1, n + 2), size=rng.integers(1, 4), replace=False))
        k, threshold = int(rng.choice(ks)), np.log(rng.uniform(0.3, 1.5))
        event = Event(train, np.zeros(n, bool), tuple(ks.tolist()), k, threshold, metric)
        ranked = np.sort(np.column_stack([others, to_j]), axis=1)
        score = np.log(ranked[:, ks - 1]) - np.log(ks) / d
        best = ks[score.argmax(axis=1)]
        holds = (ranked[np.arange(len(points)), best - 1] == to_j) & (score.max(axis=1) > threshold)
        holds &= (best == k) | (not condition_on_k)
        region, doubtful = selected_region(Pieces(z, *moving[:2]), event, condition_on_k=condition_on_k)
        assert_holds_where(region, doubtful, points, holds)
        found += holds.any() and not holds.all()
    assert found > 20


@pytest.mark.parametrize("metric", METRICS)
def test_the_regions_of_two_nearest_along_pieces_are_their_definition(metric):
    rng, found = np.random.default_rng((9, METRICS.index(metric))), 0
    for _ in range(120):
        z, moving, train, points, nearest, others = random_pieces(rng, metric, spread=3.0)
        n, d = train.shape
        ks = np.sort(rng.choice(np.arange(1, n + 3), size=rng.integers(1, 4), replace=False))
        threshold = np.log(rng.uniform(0.3, 1.5))
        event = NeighbourhoodEvent(train, np.zeros((2, n), bool), tuple(ks.tolist()), threshold, metric)
        score = np.log(np.sort(np.column_stack([*nearest, others]), axis=1)[:, ks - 1]) - np.log(ks) / d
        holds = (np.max(nearest, axis=0) < others.min(axis=1)) & (score.max(axis=1) > threshold)
        region, doubtful = neighbourhood_region(z, moving[0], list(moving[1:]), event)
        assert_holds_where(region, doubtful, points, holds)
        found += holds.any() and not holds.all()
    assert found > 20


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("before", [False, True])
def test_single_precision_leaves_a_tie_to_double(metric, before):
    """On the first piece another instance is as far as the neighbour; which of them is selected tells their order."""
    z = np.array([0.0, 1.0, 2.0])
    test, neighbour = np.array([[0.0], [0.0], [-1.0]]), np.array([[3.0], [3.0], [1.0]])
    event = Event(np.array([[3.0], [9.0]]), np.array([before, False]), (1,), k=1, threshold=0.0, metric=metric)
    exactly, _ = selected_region(Pieces(z, test, neighbour), event)
    np.testing.assert_allclose(exactly, [[1.0 if before else 0.0, 2.0]], atol=1e-12)
    found, doubtful = selected_region(Pieces(z, test.astype(np.float32), neighbour.astype(np.float32)), event)
    np.testing.assert_allclose(found, [[0.0, 2.0]], atol=1e-12)
    assert (
        rg.contains(doubtful, np.linspace(0, 1, 9)).all() and not rg.contains(doubtful, np.linspace(1.01, 2, 9)).any()
    )


@pytest.mark.parametrize("metric", METRICS)
def test_an_instance_that_is_passed_closely_is_not_overlooked(metric):
    """The test instance and its neighbour move on together, far past another instance on either side of it."""
    test = np.array([[-1.0], [1.0]])
    event = Event(np.zeros((1, 1)), np.array([False]), (1,), k=1, threshold=np.log(0.05), metric=metric)
    region, _ = selected_region(Pieces(np.array([0.0, 1.0]), test, test + 0.1), event)
    np.testing.assert_allclose(region, [[0.0, 0.45], [0.55, 1.0]], atol=1e-12)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_a_tie_next_to_the_test_instance_and_far_from_where_it_goes(metric, before):
    """Squared distances come from products of numbers that are a billion times larger."""
    for seed in range(10):
        rng, z = np.random.default_rng(seed), np.arange(4.0)
        far, close = 1000 * rng.normal(size=3), 1e-3 * rng.normal(size=(2, 3))
        test = np.stack([far, far + close[0], np.zeros(3), np.ones(3)])
        neighbour = np.stack([far + close[1], far + close[1], np.full(3, 5.0), np.full(3, 5.0)])
        others = np.stack([far + close[1], np.full(3, 1e4)])
        event = Event(others, np.array([before, False]), (1,), k=1, threshold=-20.0, metric=metric)
        region, _ = selected_region(Pieces(z, test, neighbour), event)
        assert (rg.contains(region, np.linspace(0.05, 0.95, 19)) != before).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["double", "single"])
def test_a_tie_that_begins_where_features_bend_sharply(metric, dtype):
    """On the last piece another instance is as far as the neighbour. Where that begins, the features are what they are
    a rounding of the data before: on data of 100 that is 100 roundings of z, over which they change by 300 times as
    much."""
    z = np.array([0.0, 1.0, 1.001, 3.0])
    off = 300 * 100 * float(np.finfo(dtype).eps)
    test, neighbour = np.zeros((4, 1), dtype), np.array([[0.0], [0.0], [0.3 - off], [0.3]], dtype)
    train = np.array([[neighbour[-1, 0]], [9.0]], np.float64)
    for before in (False, True):
        event = Event(train, np.array([before, False]), (1,), k=1, threshold=-9.0, metric=metric)
        found, doubtful = selected_region(Pieces(z, test, neighbour, start=100.0), event)
        inside = np.linspace(1.0015, 2.9995, 9)
        if dtype == np.float32:
            assert rg.contains(doubtful, inside).all()
        else:
            assert (rg.contains(found, inside) if len(found) else np.zeros(9, bool)).tolist() == [not before] * 9


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 2])
def test_single_precision_leaves_a_score_that_rests_at_the_threshold_to_double(metric, k):
    """On the first piece, of the only other instance in reach (k = 2), or of the neighbour itself (k = 1)."""
    z, still = np.array([0.0, 1.0, 2.0]), np.zeros((3, 1), np.float32)
    test = np.array([[0.0], [0.0], [-2.0]], np.float32)
    if k == 1:
        event = Event(np.array([[30.0]]), np.array([False]), (1,), 1, np.log(3.0), metric)
        found, doubtful = selected_region(Pieces(z, test, still + 3), event)
    else:
        before = np.zeros((1, 2), bool)
        event = NeighbourhoodEvent(np.array([[3.0], [30.0]]), before, (2,), np.log(3.0) - np.log(2.0), metric)
        found, doubtful = neighbourhood_region(z, test, [test + 1], event)
    np.testing.assert_allclose(found, [[0.0, 2.0]], atol=1e-12)
    assert rg.contains(doubtful, np.linspace(0, 1, 9)).all()
    assert not rg.contains(doubtful, np.linspace(1.01, 2, 9)).any()


def test_a_neighbour_that_leaves_the_place_of_another_instance():
    """On the second piece the neighbour starts where another instance is, passes the test instance and goes on."""
    z, test = np.array([0.0, 1.0, 2.0]), np.zeros((3, 1))
    neighbour, train = np.array([[1.0], [1.0], [-3.0]]), np.array([[1.0], [10.0]])
    event = Event(train, np.array([False, False]), candidates=(1,), k=1, threshold=np.log(0.5), metric="l2")
    region, _ = selected_region(Pieces(z, test, neighbour), event)
    # Nearer than the other, which stands behind it: |1 - 4u| < 1; and farther than the threshold.
    np.testing.assert_allclose(region, [[0, 1.125], [1.375, 1.5]], atol=1e-12)
