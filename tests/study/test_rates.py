"""Rates, exact intervals and checks of uniformity."""

import numpy as np
import pandas as pd
import pytest
from mpmath import mp
from scipy import stats

from sigad.errors import InvalidInputError
from sigad.study.rates import clopper_pearson, rejection_rate, uniform_quantiles, uniformity
from sigad.study.summary import rates_table


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 17), (51, 1000), (1, 1), (0, 0)])
def test_clopper_pearson_inverts_the_binomial_tails(successes, trials):
    low, high = clopper_pearson(successes, trials, 0.95)
    if successes > 0:
        assert stats.binom.sf(successes - 1, trials, low) == pytest.approx(0.025, rel=1e-9)
    else:
        assert low == 0
    if successes < trials:
        assert stats.binom.cdf(successes, trials, high) == pytest.approx(0.025, rel=1e-9)
    else:
        assert high == 1


def test_rates_count_every_trial_once_and_only_the_right_hypotheses():
    status = np.array(["tested", "tested", "tested", "not_selected", "failed", "tested"])
    null_true = np.array([True, True, False, None, None, True], dtype=object)
    p = np.array([0.01, 0.5, 0.001, np.nan, np.nan, 0.05])
    type1 = rejection_rate(status, null_true, p, measure="type1", alpha=0.05)
    assert type1[:7] == (6, 6, 1, 1, 4, 3, 2)
    trials = rejection_rate(status, null_true, p, [0, 0, 1, 1, 2, 2], measure="type1", alpha=0.05)
    assert trials == type1._replace(n_trials=3)
    assert type1.rate == pytest.approx(2 / 3)
    power = rejection_rate(status, null_true, p, measure="power", alpha=0.05)
    assert (power.n_counted, power.n_rejected, power.rate) == (1, 1, 1.0)


def test_mixed_neighbourhoods_are_told_as_a_share():
    """A normal instance of clusters whose neighbour is of another one: its null hypothesis is false."""

    class Rows(list):
        settings = {"here": {"n": 5}}  # noqa: RUF012

    rows = pd.DataFrame(
        {
            "status": ["tested"] * 4 + ["not_selected"],
            "null_true": [True, True, True, False, None],
            "p_value": [0.5, 0.01, 0.2, 0.001, np.nan],
            "rep": range(5),
            "seconds": 0.1,
        }
    )
    type1, power = (
        rates_table(Rows([("here", "naive", rows)]), measure=measure, alpha=0.05, level=0.95)
        for measure in ("type1", "power")
    )
    assert type1["mixed"][0] == 0.25 and type1["n_counted"][0] == 3
    assert np.isnan(power["mixed"][0])


def test_a_rate_over_nothing_is_unknown():
    rate = rejection_rate(["not_selected"], [None], [np.nan], measure="type1", alpha=0.05)
    assert np.isnan(rate.rate)
    assert (rate.low, rate.high) == (0, 1)


def test_a_tested_trial_without_p_value_is_an_error():
    with pytest.raises(InvalidInputError):
        rejection_rate(["tested"], [True], [np.nan], measure="type1", alpha=0.05)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99])
def test_anderson_darling_p_value_agrees_with_simulation(quantile):
    # 20,000 simulated samples of size 200: the standard error of the level is at most 0.0036, 4.5 of them are 0.016.
    rng = np.random.default_rng(0)
    u = np.sort(rng.random((20_000, 200)), axis=1)
    weights = 2 * np.arange(1, 201) - 1
    simulated = -200 - (weights * (np.log(u) + np.log1p(-u[:, ::-1]))).mean(axis=1)
    at = int(np.argmin(np.abs(simulated - np.quantile(simulated, quantile))))
    assert uniformity(u[at]).ad == pytest.approx(simulated[at])
    assert uniformity(u[at]).ad_p_value == pytest.approx(1 - quantile, abs=0.016)


def test_anderson_darling_statistic_against_its_integral():
    u = np.array([0.1, 0.35, 0.6, 0.95])

    def integrand(t):
        return (mp.mpf(int((u <= float(t)).sum())) / 4 - t) ** 2 / (t * (1 - t))

    exact = 4 * mp.quad(integrand, [0, *u.tolist(), 1])
    assert uniformity(u).ad == pytest.approx(float(exact), rel=1e-6)


def test_uniformity_detects_a_small_departure_and_accepts_uniform():
    rng = np.random.default_rng(1)
    u = rng.random(100_000)
    assert min(uniformity(u).ks_p_value, uniformity(u).ad_p_value) > 1e-3
    assert max(uniformity(u**1.03).ks_p_value, uniformity(u**1.03).ad_p_value) < 1e-6
    assert uniformity([]).n == 0
    with pytest.raises(InvalidInputError):
        uniformity([0.5, 1.5])


def test_quantiles_of_uniform_values_lie_on_the_diagonal():
    points = uniform_quantiles(np.linspace(0, 1, 10_001)[::-1], points=50)
    np.testing.assert_allclose(points["quantile"], points["uniform"], rtol=0, atol=1e-12)
    assert len(points["uniform"]) == 50 and points["uniform"][0] == 0.01 and points["uniform"][-1] == 0.99
