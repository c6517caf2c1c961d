"""Random problems of the kNN test, in closed form and with small networks, against the detector itself along the line:
ties on lattices, copies, extreme scales, scores next to the threshold, all metrics, fixed and data-driven k.

A problem returns what became of it, and raises AssertionError where the region is not what the detector says.
"""

import itertools

import numpy as np
import torch
from torch import nn

from sigad.errors import NumericalError
from sigad.inference import region as rg
from sigad.inference.exact import exact
from sigad.knn import detect, selection_region
from sigad.knn.network import NeighbourHypothesis, NetworkFeatures, detect_network
from tests.fuzz import AGREES, fuzzer

METRICS = ("l2", "l1", "linf")
ORDERS = {"l2": 2, "l1": 1, "linf": np.inf}
ROUNDING = 1e-10


def detected(f_test, f_train, j, ks, threshold, metric):
    """What the definition selects at m points, (m, D) and (m, n, D): k, neighbour, whether an anomaly, and by how much
    it is decided where j stands, which k, and whether an anomaly, relative to the features; 0 where nothing but equal
    features make a tie, which is then decided by position, and not by the rounding of sums."""
    distance = np.linalg.norm(f_test[:, None] - f_train, ord=ORDERS[metric], axis=-1)
    ranking = np.argsort(distance, axis=-1, kind="stable")
    ranked = np.take_along_axis(distance, ranking, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.log(ranked[:, ks - 1]) - np.log(ks) / f_test.shape[1]
        best = score.argmax(axis=-1)
        rows = np.arange(len(f_test))
        top = score[rows, best]
        others = np.delete(score.ravel(), rows * len(ks) + best).reshape(len(rows), -1)
        rest = (top[:, None] - others).min(axis=-1, initial=np.inf)
        size = ranked[rows, ks[best] - 1]
        gaps = np.abs(np.delete(distance, j, axis=1) - distance[:, [j]])
        equal = (np.delete(f_train, j, axis=1) == f_train[:, [j]]).all(axis=-1)
        apart = np.where(equal, np.inf, gaps).min(axis=1, initial=np.inf)
        scale = np.abs(f_test).max(axis=-1) + np.abs(f_train).max(axis=(1, 2))
        margin = np.fmin(apart / scale, np.fmin(rest, np.abs(top - threshold)) * size / scale)
        margin = np.where(equal.any(axis=1) & (margin > ROUNDING), 0.0, np.maximum(margin, np.finfo(float).tiny))
    return ks[best], ranking[rows, ks[best] - 1], top > threshold, margin


def points(region, low, high, rng, at):
    """Where to compare: at random, and on both sides of every end point and of the observation, closely."""
    ends = region[(region > low) & (region < high)]
    step = 1e-7 * np.maximum(1, np.abs(ends))
    z = np.concatenate([rng.uniform(low, high, 200), ends - step, ends + step, [at]])
    return np.sort(z[(z > low) & (z < high)])


def compare(region, z, same, margin):
    """The region and the detector agree at z, except where rounding decides (but not where there is an exact tie)."""
    clear = (margin > ROUNDING) | (margin == 0)
    inside = rg.contains(region, z) if len(region) else np.zeros(len(z), bool)
    wrong = clear & (inside != same)
    # An exact tie may hold at the very point only: there the region's end point is.
    ends = region.ravel()
    if wrong.any() and len(ends):
        wrong &= np.abs(z[:, None] - ends).min(axis=1) > 1e-10 * np.maximum(1, np.abs(z))
    assert not wrong.any(), (z[wrong], inside[wrong], same[wrong], margin[wrong], region)


def wide(region):
    """The intervals that are no points, to rounding: on a lattice, conditions end at the same point."""
    region = region[region[:, 0] < region[:, 1]]
    return region[np.diff(region)[:, 0] > ROUNDING * region[:, 0]]


def random_instances(rng, n, d):
    """(n + 1, d), often on a lattice, with copies, or both."""
    x = rng.normal(size=(n + 1, d))
    kind = rng.integers(5)
    if kind in (0, 1):
        step = rng.choice([0.1, 0.25, 0.5, 1.0])
        x = np.round(x / step) * step
    if kind in (1, 2):
        x[rng.integers(1, n + 1, n // 3)] = x[rng.integers(1, n + 1)]
    return x + (rng.choice([10.0, 1e4]) if kind == 3 else 0.0)


def random_candidates(rng, n):
    size = 1 if rng.random() < 0.4 else min(n, int(rng.integers(2, 5)))
    return np.sort(rng.choice(np.arange(1, n + 1), size, replace=False))


def random_threshold(rng, score):
    """Well below the score, or so close that single precision cannot tell, or on the other side."""
    return float(score - rng.choice([3.0, rng.exponential(), 1e-3, 1e-8, 1e-10, 0.0, -1e-8]))


@fuzzer("knn closed form")
def closed_form(seed):
    """The region of identity features, at every scale, against the definition."""
    rng = np.random.default_rng((1, seed))
    n, d, metric = int(rng.integers(1, 25)), int(rng.integers(1, 6)), METRICS[rng.integers(3)]
    x, ks = random_instances(rng, n, d), random_candidates(rng, n)
    how = dict(k=ks, metric=metric)
    score = detect(x[:1], x[1:], threshold=-np.inf, **how).score[0]
    if not np.isfinite(score):
        return "not_selected"
    threshold = random_threshold(rng, score)
    found = detect(x[:1], x[1:], threshold=threshold, **how)
    if not found.selected[0]:
        return "not_selected"
    j, condition_on_k = int(found.index[0]), bool(rng.random() < 0.5)
    middle, half = (x[0] + x[1 + j]) / 2, (x[0] - x[1 + j]) / 2

    def along(r):
        train = np.broadcast_to(x[1:], (len(r), n, d)).copy()
        train[:, j] = middle - r[:, None] * half
        k, index, selected, margin = detected(middle + r[:, None] * half, train, j, ks, threshold, metric)
        return selected & (index == j) & ((k == found.k[0]) | (not condition_on_k)), margin

    scale = 2.0 ** int(rng.choice([-900, -650, -500, 500, 650, 900]))
    shifted = detect(scale * x[:1], scale * x[1:], threshold=threshold + np.log(scale), **how)
    try:
        region = selection_region(found, condition_on_k=condition_on_k)[0]
    except NumericalError:
        own = (x[1:] == x[0]).all(axis=1).any()
        assert own or along(np.array([1.0]))[1][0] <= ROUNDING, "refused without a tie"
        return "tied"
    region = region[region[:, 0] < region[:, 1]]
    r = points(region, 0.0, 6.0, rng, 1.0)
    compare(region, r, *along(r))
    # Rounding of the logarithm of the scale decides about a score that is this close to the threshold.
    if along(np.array([1.0]))[1][0] > 1e-9:
        assert shifted.selected[0] and shifted.index[0] == j and shifted.k[0] == found.k[0]
        other = selection_region(shifted, condition_on_k=condition_on_k)[0]
        np.testing.assert_allclose(wide(other), wide(region), rtol=1e-9)
    return AGREES


class Lattice(nn.Module):
    """A small network whose weights are multiples of a step, so that features are tied on whole intervals; its biases
    are multiplied by a scale, that of the data."""

    def __init__(self, rng, d, step, scale):
        super().__init__()
        widths = [d, *rng.integers(1, 5, int(rng.integers(1, 4))).tolist()]
        self.layers = nn.ModuleList([nn.Linear(a, b).double() for a, b in itertools.pairwise(widths)])
        for layer in self.layers:
            for p in layer.parameters():
                values = rng.normal(size=tuple(p.shape))
                p.data = torch.from_numpy(np.round(values / step) * step if step else values)
            layer.bias.data *= scale
        self.last, self.offset = bool(rng.random() < 0.6), scale * float(rng.choice([0.0, 0.1, 30.0]))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x)
            x = torch.relu(x) if self.last or i + 1 < len(self.layers) else x
        return x + self.offset


@fuzzer("knn networks")
def network(seed):
    """The region that the exact engine finds for a small network, against the detector itself."""
    rng = np.random.default_rng((2, seed))
    n, d, metric = int(rng.integers(2, 12)), int(rng.integers(1, 4)), METRICS[rng.integers(3)]
    x, ks = random_instances(rng, n, d), random_candidates(rng, n)
    scale, of_biases = 2.0 ** rng.choice([[0, 0], [0, 0], [-300, -300], [300, 300], [-8, 0], [8, 0]])
    features = NetworkFeatures(Lattice(rng, d, rng.choice([0.0, 0.1, 0.3, 0.5]), of_biases).eval())
    x = x * scale
    how = dict(k=ks, metric=metric, features=features, train_features=features(x[1:]))
    seen = detect_network(x[:1], x[1:], threshold=-np.inf, **how)[0]
    if not np.isfinite(seen.score[0]):
        return "not_selected"
    threshold = random_threshold(rng, seen.score[0])
    found, shape, _ = detect_network(x[:1], x[1:], threshold=threshold, **how)
    if not found.selected[0]:
        return "not_selected"
    t = float(rng.choice([0.5, 1.0, 2.0, 4.0])) * np.sqrt(d)
    condition_on_k = bool(rng.random() < 0.5)

    def along(hypothesis, z):
        j, event = int(found.index[0]), hypothesis.event
        test, neighbour = (hypothesis._at(z, sign) for sign in (1.0, -1.0))
        train = np.repeat(np.insert(event.train, j, 0.0, axis=0)[None], len(z), axis=0)
        train[:, j] = neighbour
        return detected(test, train, j, ks, threshold, metric)[3]

    hypothesis = None
    try:
        hypothesis = NeighbourHypothesis.of(features, found, 0, t, shape, condition_on_k=condition_on_k)
        result = exact(hypothesis, exhaustive=True)
    except NumericalError as error:
        if hypothesis is None:
            return "tied"
        near = t * (1 + np.array([-1e-8, 0.0, 1e-8]))
        assert along(hypothesis, near).min() < 1e-7 or not hypothesis.same(near).all(), (
            f"refused without a tie: {error}"
        )
        return "tied"
    z = points(result.region, *result.searched, rng, t)
    compare(result.region, z, hypothesis.same(z), along(hypothesis, z))
    return AGREES
