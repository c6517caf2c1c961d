"""A threshold for a target rate of false alarms, from the scores of normal instances only, and what rate to expect.

An alarm is a score above the threshold. With the k-th largest of m normal scores as the threshold, the rate of alarms
among further normal instances is itself random, because the m scores were: if scores are independent with a continuous
distribution it is Beta(k, m + 1 - k), exactly and whatever that distribution is; with ties it is smaller. Its mean is
k / (m + 1).

Source: Wilks (1941) for the law of the rate (a tolerance limit); Vovk (2012) for what this says about conformal tests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sigad.checks import real_array, real_number, share, whole_number
from sigad.errors import InvalidInputError


@dataclass(frozen=True)
class AlarmThreshold:
    """A threshold of the score, and the exact law of the rate of false alarms that it leads to.

    Attributes
    ----------
    threshold : an alarm is a score greater than this, the ``rank``-th largest of ``n_scores`` normal scores.
    rank, n_scores : k and m: the rate of false alarms is Beta(k, m + 1 - k).
    """

    threshold: float
    rank: int
    n_scores: int

    @property
    def expected(self) -> float:
        """Mean of the rate: the probability that a further normal instance raises an alarm, calibration included."""
        return self.rank / (self.n_scores + 1)

    def rate_interval(self, level: float = 0.95) -> tuple[float, float]:
        """An interval that holds the rate with this probability, equal in both tails."""
        from scipy import stats  # slow to import

        level = share(level, "level")
        law = stats.beta(self.rank, self.n_scores + 1 - self.rank)
        return float(law.ppf((1 - level) / 2)), float(law.isf((1 - level) / 2))

    def confidence(self, rate: float) -> float:
        """Probability, over the calibration scores, that the rate of false alarms is at most ``rate``."""
        from scipy import special

        rate = np.clip(real_number(rate, "rate"), 0.0, 1.0)
        return float(special.betainc(self.rank, self.n_scores + 1 - self.rank, rate))

    def alarms_interval(self, parts: int = 1000, level: float = 0.95) -> tuple[int, int]:
        """Numbers of false alarms among so many further normal parts: beta-binomial, at least this probability."""
        from scipy import stats

        parts, level = whole_number(parts, "parts", least=0), share(level, "level")
        law = stats.betabinom(parts, self.rank, self.n_scores + 1 - self.rank)
        return int(law.ppf((1 - level) / 2)), int(law.isf((1 - level) / 2))

    def __repr__(self) -> str:
        low, high = (1000 * rate for rate in self.rate_interval())
        return (
            f"AlarmThreshold({self.threshold:.6g}, the {self.rank}. largest of {self.n_scores} normal scores: "
            f"{1000 * self.expected:.3g} alarms per 1,000 normal parts expected, a rate of {low:.3g} to {high:.3g})"
        )


def alarm_threshold(normal_scores: ArrayLike, rate: float, *, confidence: float | None = None) -> AlarmThreshold:
    """The lowest threshold for a target rate of false alarms, from normal scores only.

    Parameters
    ----------
    normal_scores : (m,) scores of normal instances that the detector has not been fitted to; large is anomalous.
    rate : target, in (0, 1): 0.001 is one alarm per 1,000 normal parts.
    confidence : None: the rate is at most the target on average over calibrations (what a conformal p-value promises).
        A probability: with it the rate is at most the target, for the scores at hand.

    Raises
    ------
    InvalidInputError
        for NaN, or too few scores for the target; says how many it takes.
    """
    scores = real_array(normal_scores, "normal_scores")
    if scores.ndim != 1:
        raise InvalidInputError(f"normal_scores must have shape (m,), not {scores.shape}")
    rate, confidence = share(rate, "rate"), None if confidence is None else share(confidence, "confidence")
    m = len(scores)
    rank = _largest_rank(m, rate, confidence)
    if rank == 0:
        needed = np.ceil(1 / rate - 1) if confidence is None else np.ceil(np.log1p(-confidence) / np.log1p(-rate))
        raise InvalidInputError(
            f"{m} normal scores cannot promise a rate of {rate:g}: it takes {int(needed)} of them, or a higher rate"
        )
    return AlarmThreshold(float(np.partition(scores, m - rank)[m - rank]), rank, m)


def _largest_rank(m: int, rate: float, confidence: float | None) -> int:
    """The largest k whose rate, Beta(k, m + 1 - k), meets the target; 0 if none does."""
    k = np.arange(1, m + 1)
    if confidence is None:
        met = k <= rate * (m + 1) * (1 + 1e-12)  # k / (m + 1) <= rate, however the product is rounded
    else:
        from scipy import special

        met = special.betainc(k, m + 1 - k, rate) >= confidence
    return int(met.sum())
