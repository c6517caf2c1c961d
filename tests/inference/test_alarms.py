"""The threshold for a target rate of false alarms, and the F1-adaptive threshold of normal-only validation."""

import warnings

import numpy as np
import pytest
from scipy import stats

from sigad.errors import InvalidInputError
from sigad.inference.alarms import AlarmThreshold, alarm_threshold
from sigad.study.rates import uniformity


@pytest.mark.parametrize("law", [stats.t(2), stats.lognorm(1.5), stats.uniform()])
def test_the_realised_rate_is_beta_distributed(law):
    # 2,000 calibrations with 199 scores: the rate of the threshold is known from the law. KS p < 1e-4 has that
    # probability.
    scores = law.rvs((2000, 199), random_state=1)
    thresholds = [alarm_threshold(row, 0.02) for row in scores]
    assert {(t.rank, t.n_scores) for t in thresholds} == {(4, 199)}
    rates = law.sf([t.threshold for t in thresholds])
    assert uniformity(stats.beta(4, 196).cdf(rates)).ks_p_value > 1e-4
    assert thresholds[0].expected == 0.02
    low, high = thresholds[0].rate_interval(0.9)
    assert np.mean((low <= rates) & (rates <= high)) == pytest.approx(0.9, abs=0.03)
    assert np.mean(rates <= 0.03) == pytest.approx(thresholds[0].confidence(0.03), abs=0.05)


def test_number_of_alarms_among_further_parts():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.exponential(size=(4000, 99)), axis=1)
    alarms = (rng.exponential(size=(4000, 50)) > scores[:, -3, None]).sum(1)  # the third largest
    threshold = AlarmThreshold(0.0, 3, 99)
    low, high = threshold.alarms_interval(50, 0.9)
    law = stats.betabinom(50, 3, 97)
    assert law.cdf(high) - law.cdf(low - 1) >= 0.9
    expected = 4000 * law.pmf(np.arange(6))
    observed = [*np.bincount(alarms, minlength=6)[:6], (alarms > 5).sum()]
    assert stats.chisquare(observed, [*expected, 4000 - expected.sum()]).pvalue > 1e-4


def test_target_on_average_and_with_confidence():
    scores = np.arange(1000.0)
    mean = alarm_threshold(scores, 0.01)
    assert mean.rank == 10 and mean.threshold == 990 and (scores > mean.threshold).sum() == 9
    sure = alarm_threshold(scores, 0.01, confidence=0.95)
    assert sure.rank < mean.rank and sure.confidence(0.01) >= 0.95
    assert AlarmThreshold(0.0, sure.rank + 1, 1000).confidence(0.01) < 0.95  # the lowest such threshold
    # An exact boundary is no matter of rounding.
    assert alarm_threshold(np.arange(99.0), 0.07).rank == 7


@pytest.mark.parametrize(("rate", "confidence", "needed"), [(0.001, None, 999), (0.01, 0.95, 299), (0.3, 0.5, 2)])
def test_too_few_scores_say_how_many_it_takes(rate, confidence, needed):
    assert alarm_threshold(np.arange(float(needed)), rate, confidence=confidence).rank == 1
    with pytest.raises(InvalidInputError, match=str(needed)):
        alarm_threshold(np.arange(needed - 1.0), rate, confidence=confidence)


def test_ties_only_lower_the_rate():
    assert alarm_threshold([0.0] * 90 + [1.0] * 10, 0.05).threshold == 1.0
    for wrong in ([np.nan, 1.0], [[1.0]]):
        with pytest.raises(InvalidInputError):
            alarm_threshold(wrong, 0.5)
    with pytest.raises(InvalidInputError):
        alarm_threshold([1.0, 2.0], 1.0)


def test_f1_adaptive_threshold_of_normal_scores_is_their_minimum():
    # What anomalib's F1AdaptiveThreshold computes: the threshold of the precision-recall curve with the largest F1.
    metrics = pytest.importorskip("sklearn.metrics")
    scores = np.random.default_rng(0).normal(size=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no positive sample
        precision, recall, thresholds = metrics.precision_recall_curve(np.zeros(500, int), scores)
    f1 = 2 * precision * recall / (precision + recall + 1e-10)
    adaptive = thresholds[np.argmax(f1)]
    assert adaptive == scores.min() and (scores >= adaptive).all()
    assert alarm_threshold(scores, 0.01).expected <= 0.01


@pytest.mark.parametrize(
    "call",
    [
        lambda scores: alarm_threshold(scores, "1%"),
        lambda scores: alarm_threshold(scores, 0.1, confidence=95),
        lambda scores: alarm_threshold(scores, 0.1).rate_interval(95),
        lambda scores: alarm_threshold(scores, 0.1).alarms_interval(-1),
        lambda scores: alarm_threshold(scores, 0.1).alarms_interval(100, level=95),
        lambda scores: alarm_threshold(scores, 0.1).confidence("x"),
    ],
)
def test_shares_and_counts_are_checked(call):
    with pytest.raises(InvalidInputError):
        call(np.arange(50.0))
