"""Magnitudes that differ: what double precision holds is right, and what it does not hold is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from sigad.errors import NumericalError
from sigad.inference.truncated import truncated_pvalue
from sigad.knn import knn_test
from sigad.knn.pieces import Event, NeighbourhoodEvent, Pieces, neighbourhood_region, selected_region

IDENTITY = nn.Identity().eval()
HOW = dict(k=3, threshold=-3.0, covariance=1.0)


def problem(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=3), rng.normal(size=(12, 3))


class Offset(nn.Module):
    """The instance itself, and a large number."""

    def __init__(self, offset):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor([offset, 0.0, 0.0], dtype=torch.float64))

    def forward(self, x):
        return x + self.offset


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("seed", range(3))
def test_features_with_an_offset(metric, seed):
    # Ties are told by the rounding of the features; no end point may move by that, or not by much.
    x, train = problem(seed)
    expected = knn_test(x, train, metric=metric, **HOW).p_value
    for offset in (1e4, 1e6, 1e8, 1e9)[: 4 if metric == "l2" else 2]:
        found = knn_test(x, train, metric=metric, features=Offset(offset).eval(), **HOW)
        assert found.p_value == pytest.approx(expected, rel=1e-5)
    for offset in (1e12 if metric == "l2" else 1e9, 1e14, 1e16, 1e90):
        with pytest.raises(NumericalError, match="double precision leaves too few digits"):
            knn_test(x, train, metric=metric, features=Offset(offset).eval(), **HOW)


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("far", [1e20, 1e90, 1e160, 1e300])
def test_training_instances_far_beyond_all_others(metric, far):
    for seed in range(2):
        x, train = problem(seed)
        train[[5, 7]] += [[far, 0, 0], [0, -far, far]]
        expected = knn_test(x, train, metric=metric, **HOW).p_value
        assert knn_test(x, train, metric=metric, features=IDENTITY, **HOW).p_value == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_a_small_statistic(metric):
    for seed in range(2):
        x, train = problem(seed)
        for size in (1e-4, 1e-6, 1e-8):
            how = HOW | dict(metric=metric, threshold=-3.0 + np.log(size))
            expected = knn_test(size * x, size * train, **how).p_value
            found = knn_test(size * x, size * train, features=IDENTITY, **how)
            assert found.p_value == pytest.approx(expected, rel=1e-6)
        for size in (1e-12, 1e-60, 1e-200):
            with pytest.raises(NumericalError, match="too small for a search along the line"):
                knn_test(size * x, size * train, features=IDENTITY, **(how | {"threshold": -np.inf}))


class Broken(nn.Module):
    """A piecewise-linear function of a number: its values at some, and linear in between and beyond."""

    def __init__(self, at, values):
        super().__init__()
        at, values = np.array(at), np.array(values)
        slopes = np.diff(values) / np.diff(at)
        self.at, self.first = torch.tensor(at[:-1]), float(values[0])
        self.bends = torch.tensor(np.diff(slopes, prepend=0.0))

    def forward(self, x):
        return self.first + (torch.relu(x - self.at.to(x.dtype)) * self.bends.to(x.dtype)).sum(-1, keepdim=True)


# Features near 1000 are multiples of 6e-5 in single precision: there, the first two of these are 1001.
ABOVE, BELOW, BETWEEN = 1 + 1e-5, 1 - 1e-5, 1 - 5e-6
# Along the line of the test instance z/2 and its neighbour -z/2, at which the feature is 1000.
AT = [0, 0.2, 0.8, 1.0, 2.0, 2.2, 3.0, 3.2, 60.0]
FEATURE = [0, 2.0, 2.0, ABOVE, ABOVE, BELOW, BELOW, ABOVE, ABOVE]
FIRST, DOWN, UP = 0.1 * BETWEEN, 2.15, 3.05
HIGH, LOW = [[FIRST, DOWN], [UP, np.inf]], [[0.0, FIRST], [DOWN, UP]]


@pytest.mark.parametrize("against", ["neighbour", "neighbourhood"])
@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize(
    ("what", "other", "statistic", "region"),
    [
        ({"k": 1, "threshold": np.log(BETWEEN)}, 100.0, 0.5, HIGH),  # d_j > BETWEEN
        ({"k": [1, 2], "threshold": -30.0}, -BETWEEN, 0.5, HIGH),  # 2 d_j > d_i = BETWEEN + d_j
        ({"k": 1, "threshold": -30.0}, 2 * BETWEEN, 0.05, LOW),  # d_j < d_i = 2 BETWEEN - d_j
    ],
    ids=["threshold", "candidates", "order"],
)
def test_what_rests_within_single_precision_is_looked_at_in_double(against, metric, what, other, statistic, region):
    if against == "neighbourhood":
        if np.ndim(what["k"]):
            pytest.skip("the selected k is not conditioned on")
        what = what | {"against": 1}
    at = [-70.0, -60.0, -50.0, *np.array(AT) / 2]
    network = Broken(at, 1000 + np.array([other, other, 0.0, *FEATURE])).eval()
    x, train = np.array([statistic / 2]), np.array([[-65.0], [-statistic / 2]])
    found = knn_test(x, train, covariance=0.5, metric=metric, features=network, **what)
    expected = float(truncated_pvalue(statistic, np.array(region), null=("chi", 1)))
    assert found.p_low - 1e-8 <= expected <= found.p_high + 1e-8


@pytest.mark.parametrize("feature", [0.0, 2.0**300])
@pytest.mark.parametrize("metric", ["l2", "l1", "linf"])
def test_features_that_are_all_equal_on_a_window_are_nearer_than_any_threshold(metric, feature):
    z, moving, train = np.array([0.0, 1.0]), np.full((2, 3), feature), np.full((4, 3), feature)
    how = {"train": train, "candidates": (1, 2), "threshold": 202.0, "metric": metric}  # e^202 is 2e88
    nearest = NeighbourhoodEvent(before=np.zeros((1, 4), bool), **how)
    regions = [
        *selected_region(Pieces(z, moving, moving), Event(before=np.zeros(4, bool), k=1, **how)),
        *neighbourhood_region(z, moving, [moving], nearest),
    ]
    assert not any(map(len, regions))
