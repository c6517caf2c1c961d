"""The kNN test with network features on a lattice."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sigad import Lattice, knn_test, knn_test_batch
from sigad.errors import InvalidInputError, NumericalError, UnsupportedOperationError
from sigad.knn.network import NetworkFeatures
from tests.knn.test_network_regions import random_problem, small_network


class Tokens(nn.Module):
    """Class token features of one transformer layer: softmax attention, layer norm, GELU."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
            self.embed, self.encoder = nn.Linear(4, 16), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x):
        patches = x.unfold(2, 2, 2).unfold(3, 2, 2).reshape(len(x), -1, 4)
        return self.encoder(self.embed(patches)).mean(1)


@pytest.mark.parametrize("against", ["neighbour", "neighbourhood"])
def test_a_fine_lattice_agrees_with_the_exact_engine(against):
    rng, tested = np.random.default_rng(7), 0
    for _ in range(6):
        x, x_train, problem = random_problem(rng, small_network(rng), (1, 6, 6), "l2", n=12)
        given = {**problem, "against": against, "covariance": 1.0}
        exact = knn_test(x, x_train, **given, tolerance=1e-6)
        if exact.status != "tested":
            continue
        length = np.diff(np.clip(exact.region, exact.statistic - 1, exact.statistic + 1)).sum()
        found = knn_test(x, x_train, **given, engine=Lattice(spacing=min(0.02, length / 200), batch=2000))
        tested += 1
        assert found.p_value == pytest.approx(exact.p_value, abs=0.03)
        assert found.statistic == exact.statistic and found.selection == exact.selection
    assert tested >= 3


def test_a_transformer():
    features = NetworkFeatures(Tokens().eval())
    rng = np.random.default_rng(0)
    x_train, x = rng.standard_normal((40, 1, 6, 6)), rng.standard_normal((1, 6, 6)) + 1.0
    given = {"k": 5, "threshold": -5.0, "covariance": 1.0, "features": features}
    with pytest.raises(UnsupportedOperationError, match='engine="lattice"'):
        knn_test(x, x_train, **given)
    result = knn_test(x, x_train, **given, engine="lattice")
    assert result.status == "tested" and result.n_evaluations < 400
    one = knn_test(x, x_train, **given, engine="lattice", against="neighbourhood")
    batch = knn_test_batch(x[None], x_train, **given, engine="lattice", against="neighbourhood")
    assert batch[0].p_value == one.p_value < result.p_value
    # The points that lead to the same selection, T among them.
    assert len(one.region) > 5 and one.statistic in one.region[:, 0] and (one.region[:, 0] == one.region[:, 1]).all()


def test_single_precision_is_for_the_lattice_only():
    rng, module = np.random.default_rng(0), Tokens().eval()
    x_train, x = rng.standard_normal((40, 1, 6, 6)), rng.standard_normal((1, 6, 6)) + 1.0
    given = {"k": 5, "threshold": -5.0, "covariance": 1.0}
    single, double = (NetworkFeatures(module, dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert 0 < np.abs(single(x_train) - double(x_train)).max() < 1e-5
    results = [knn_test(x, x_train, features=f, engine="lattice", **given) for f in (single, double)]
    assert results[0].p_value == pytest.approx(results[1].p_value, rel=1e-3)
    with pytest.raises(InvalidInputError, match="double precision"):
        knn_test(x, x_train, features=NetworkFeatures(nn.Flatten(), dtype=torch.float32), **given)
    with pytest.raises(InvalidInputError, match="dtype"):
        NetworkFeatures(module, dtype=torch.float16)


def test_uniform_under_the_null_hypothesis():
    """Randomised, with a transformer; KS with a fixed seed, error probability 1e-3."""
    features, rng = NetworkFeatures(Tokens().eval()), np.random.default_rng(1)
    x_train, x = rng.standard_normal((150, 20, 1, 6, 6)), rng.standard_normal((150, 1, 6, 6))
    result = knn_test_batch(
        x, x_train, k=4, threshold=-5.0, covariance=1.0, features=features, engine=Lattice(spacing=0.1, rng=rng)
    )
    assert (result.status == "tested").all() and stats.kstest(result.p_value, "uniform").pvalue > 1e-3


def test_a_closed_form_needs_no_engine():
    x_train = np.random.default_rng(0).standard_normal((9, 3))
    with pytest.raises(InvalidInputError, match="closed form"):
        knn_test(np.ones(3), x_train, k=1, threshold=-9.0, covariance=1.0, engine="lattice")


@pytest.mark.parametrize("against", ["neighbour", "neighbourhood"])
def test_a_neighbour_with_a_copy_has_no_p_value(against):
    # At T the copy ties with it, beside T it does not: T would be the first or the last point of the truncation set.
    rng = np.random.default_rng(3)
    x, x_train = rng.standard_normal(3) + 1.0, rng.standard_normal((12, 3))
    given = {"k": 4, "threshold": -9.0, "covariance": 1.0, "features": nn.Tanh().eval(), "engine": "lattice"}
    found = knn_test(x, x_train, against=against, **given).selection
    chosen = found.indices[0] if against == "neighbourhood" else found.index
    far = np.linalg.norm(np.tanh(x) - np.tanh(x_train), axis=1).argmax()
    x_train[far] = x_train[chosen]
    with pytest.raises(NumericalError, match="copy"):
        knn_test(x, x_train, against=against, **given)
