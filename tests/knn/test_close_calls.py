"""Scores next to the threshold and ties, with the features of a network: double precision decides, and a problem that
it cannot decide has no p-value and takes no other problem with it."""

import numpy as np
import pytest
import torch
from torch import nn

from sigad.errors import NumericalError
from sigad.inference.exact import exact
from sigad.knn import knn_test, knn_test_batch
from sigad.knn.network import NeighbourHypothesis, NetworkFeatures, detect_network
from tests.knn.test_magnitudes import Offset


def problem(seed=0, n=10, d=3):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(d, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    return rng.normal(size=d), rng.normal(size=(n, d)), NetworkFeatures(network)


@pytest.mark.parametrize("gap", [1e-7, 1e-9, 1e-11])
@pytest.mark.parametrize("seed", range(4))
def test_a_score_next_to_the_threshold_is_decided_in_double_precision(gap, seed):
    x, train, features = problem(seed)
    score = detect_network(x[None], train, k=2, threshold=-np.inf, features=features)[0].score[0]
    how = dict(k=2, threshold=score - gap, features=features)
    found = knn_test(x, train, covariance=1.0, **how)
    detections, shape, network = detect_network(x[None], train, **how)
    hypothesis = NeighbourHypothesis.of(network, detections, 0, found.statistic, shape)
    double = exact(hypothesis, dtype=torch.float64)
    assert found.p_low <= double.p_high and double.p_low <= found.p_high and 0 < found.p_value < 1
    end = found.region[np.abs(found.region - found.statistic).argmin(axis=0)].min()
    assert hypothesis.same(np.array([found.statistic]))[0] and end < np.inf
    assert not knn_test(x, train, covariance=1.0, **(how | {"threshold": score + gap})).status == "tested"


@pytest.mark.parametrize("gap", [1e-12, 1e-10])
@pytest.mark.parametrize("seed", [2, 3, 5])
def test_what_the_rounding_of_features_decides_has_no_p_value(gap, seed):
    """Features with an offset are rounded more coarsely than their instances, whose movement they follow: end points
    are not where instances are next to the observation, and p-values would be 0 or 1."""
    rng, features = np.random.default_rng(seed), NetworkFeatures(Offset(1e6).eval())
    x, train = rng.normal(size=3), rng.normal(size=(12, 3))
    score = detect_network(x[None], train, k=2, threshold=-np.inf, features=features)[0].score[0]
    for against in ("neighbour", 2):
        with pytest.raises(NumericalError, match="end point"):  # a score at the threshold
            knn_test(x, train, k=2, threshold=score - gap, covariance=1.0, features=features, against=against)
    length = np.array([1.0, 2 ** (1 / 3) * (1 + gap), *[5.0] * 10])[:, None]
    away = train / np.linalg.norm(train, axis=1, keepdims=True) * length
    with pytest.raises(NumericalError, match="end point"):  # two k of one score
        knn_test(x, x + away, k=[1, 2], threshold=-5.0, covariance=1.0, features=features)
    away[1] /= 2 ** (1 / 3)
    for against in ("neighbour", 1):
        with pytest.raises(NumericalError, match="end point"):  # two neighbours at one distance
            knn_test(x, x + away, k=1, threshold=-5.0, covariance=1.0, features=features, against=against)


@pytest.mark.parametrize("spoil", ["copy of the neighbour", "test instance among them", "at the threshold"])
def test_a_tie_does_not_take_the_batch_with_it(spoil):
    x, train, features = problem()
    rng = np.random.default_rng(1)
    tests, sets = np.stack([x, *rng.normal(size=(2, 3))]), np.repeat(train[None], 3, axis=0)
    found = detect_network(tests, sets, k=2, threshold=-np.inf, features=features)[0]
    threshold = np.full(3, -8.0)
    if spoil == "at the threshold":
        threshold[1] = np.nextafter(found.score[1], -np.inf)
    elif spoil == "copy of the neighbour":
        far = np.linalg.norm(found.f_test[1] - found.f_train[1], axis=1).argmax()
        sets[1, far] = sets[1, found.index[1]]
    else:
        sets[1, found.index[0]] = tests[1]
    how = dict(k=2, covariance=1.0, features=features)
    batch = knn_test_batch(tests, sets, threshold=threshold, **how)
    assert batch.status.tolist() == ["tested", "failed", "tested"]
    assert np.isnan(batch.p_value[1]) and batch.reason[1] and not batch.reason[0]
    for b in (0, 2):
        assert batch.p_value[b] == knn_test(tests[b], sets[b], threshold=threshold[b], **how).p_value
    with pytest.raises(NumericalError):
        knn_test(tests[1], sets[1], threshold=threshold[1], **how)
