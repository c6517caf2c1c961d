"""The localization test on a lattice: the exact p-values of ReLU networks, and networks that only it can take."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sigad import Lattice, localization_test
from sigad.errors import InvalidInputError, UnsupportedOperationError
from tests.localization.small_detectors import autoencoder

THRESHOLD = 0.75


def images(seed, signal=0.0, size=8):
    x, x_ref = np.random.default_rng([seed, 0]).standard_normal((2, 1, size, size))
    x[:, 2:5, 2:5] += signal
    return x, x_ref


class Smooth(nn.Module):
    """SiLU, group norm and attention over the pixels: nothing that the exact engine can follow."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.into, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.out = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        y = nn.functional.silu(self.norm(self.into(x)))
        tokens = y.flatten(2).mT
        return self.out(y + self.attention(tokens, tokens, tokens)[0].mT.reshape(y.shape))


def test_a_fine_lattice_agrees_with_the_exact_engine():
    tested, network = 0, autoencoder()
    for seed in range(12):
        x, x_ref = images(seed, signal=seed % 3)
        given = {"threshold": THRESHOLD, "covariance": 1.0, "exhaustive": True}
        exact = localization_test(network, x, x_ref, **given)
        if exact.status != "tested":
            continue
        length = np.diff(np.clip(exact.region, exact.statistic - 1, exact.statistic + 1)).sum()
        engine = Lattice(spacing=min(0.01, length / 200), batch=2000)
        found = localization_test(network, x, x_ref, engine=engine, **given)
        tested += 1
        # Two points more or less at the ends of an interval, of 200 or more.
        assert found.p_value == pytest.approx(exact.p_value, abs=0.03)
        assert found.statistic == exact.statistic and (found.selection.mask == exact.selection.mask).all()
        np.testing.assert_allclose(found.effect, exact.effect)
        inside = (exact.region[:, :1] - 1e-9 <= found.region[:, 0]) & (found.region[:, 0] <= exact.region[:, 1:] + 1e-9)
        assert inside.any(0).all()
        if np.diff(exact.confidence_interval) < 5:
            np.testing.assert_allclose(found.confidence_interval, exact.confidence_interval, rtol=0.1, atol=0.2)
    assert tested >= 6


def test_what_the_exact_engine_refuses_it_names_the_way_out():
    x, x_ref = images(0, signal=3.0)
    given = {"covariance": 1.0}
    for threshold in (1.0, 1e6):  # also where nothing is marked
        with pytest.raises(UnsupportedOperationError, match='engine="lattice"'):
            localization_test(Smooth().eval(), x, x_ref, threshold=threshold, **given)
    result = localization_test(Smooth().eval(), x, x_ref, threshold=1.0, engine="lattice", **given)
    assert result.status == "tested" and 0 < result.p_value <= 1 and 0 < result.n_evaluations < 1000
    nothing = localization_test(Smooth().eval(), x, x_ref, threshold=1e6, engine="lattice", **given)
    assert nothing.status == "not_selected"
    with pytest.raises(InvalidInputError, match='"lattice"'):
        localization_test(Smooth().eval(), x, x_ref, threshold=1.0, engine="grid", **given)


def test_the_detector_in_single_precision():
    x, x_ref = images(0, signal=3.0)
    given = {"threshold": 1.0, "covariance": 1.0, "engine": "lattice"}
    precisions = (None, torch.float32)
    double, single = (localization_test(Smooth().eval(), x, x_ref, dtype=dtype, **given) for dtype in precisions)
    assert 0 < np.abs(double.selection.scores - single.selection.scores).max() < 1e-5
    assert single.p_value == pytest.approx(double.p_value, rel=1e-3)


def test_uniform_under_the_null_hypothesis():
    """Randomised, attention and all; KS with fixed seeds, error probability 1e-3."""
    network, rng, p = Smooth().eval(), np.random.default_rng(2), []
    for seed in range(400):
        result = localization_test(
            network, *images(seed), threshold=1.0, covariance=1.0, engine=Lattice(spacing=0.1, rng=rng)
        )
        p += [result.p_value] if result.status == "tested" else []
    assert len(p) > 100 and stats.kstest(p, "uniform").pvalue > 1e-3
