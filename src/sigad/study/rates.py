"""Rejection rates with exact intervals, and checks of the uniformity of p-values."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sigad.errors import InvalidInputError


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[NDArray, NDArray]:
    """Exact (Clopper-Pearson) confidence interval of a binomial proportion; [0, 1] where there is no trial."""
    s, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    if not 0 < level < 1 or (s < 0).any() or (s > n).any():
        raise InvalidInputError("need 0 <= successes <= trials and 0 < level < 1")
    tail = (1 - level) / 2
    lower = np.where(s > 0, special.betaincinv(np.maximum(s, 1), n - s + 1, tail), 0.0)
    upper = np.where(s < n, special.betaincinv(s + 1, np.maximum(n - s, 1), 1 - tail), 1.0)
    return lower, upper


class Rate(NamedTuple):
    """A rejection rate, and everything that was counted for it.

    Of the ``n_hypotheses`` of ``n_trials`` trials, ``n_not_selected`` were not selected by the detector and
    ``n_failed`` failed; ``n_tested`` have a p-value. ``n_counted`` of these have a true null hypothesis (Type I error
    rate) or a false one (power), and ``n_rejected`` of those have p <= alpha. ``rate`` is their ratio, NaN if nothing
    counts, in [``low``, ``high``]: an exact interval where trials have one hypothesis each, for those of one trial
    depend on one another.
    """

    n_trials: int
    n_hypotheses: int
    n_not_selected: int
    n_failed: int
    n_tested: int
    n_counted: int
    n_rejected: int
    rate: float
    low: float
    high: float


MEASURES = {"type1": True, "power": False}


def rejection_rate(
    status: ArrayLike,
    null_true: ArrayLike,
    p_value: ArrayLike,
    rep: ArrayLike | None = None,
    *,
    measure: str,
    alpha: float,
    level: float = 0.95,
) -> Rate:
    """Type I error rate (``measure="type1"``: over true nulls) or power (``"power"``: over false ones) of one method.

    Of N hypotheses: ``status`` (N,) of str, ``null_true`` (N,) of bool (ignored unless tested), ``p_value`` (N,), and
    ``rep`` (N,) their trials; each has a trial of its own if None.
    """
    if measure not in MEASURES:
        raise InvalidInputError(f"measure must be one of {', '.join(MEASURES)}, not {measure!r}")
    status, p_value = np.asarray(status), np.asarray(p_value, np.float64)
    tested = status == "tested"
    if np.isnan(p_value[tested]).any():
        raise InvalidInputError("a tested trial has no p-value")
    counted = tested & (np.asarray(null_true) == MEASURES[measure])
    rejected = counted & (p_value <= alpha)
    n_counted, n_rejected = int(counted.sum()), int(rejected.sum())
    low, high = clopper_pearson(n_rejected, n_counted, level)
    return Rate(
        n_trials=len(status) if rep is None else len(np.unique(rep)),
        n_hypotheses=len(status),
        n_not_selected=int((status == "not_selected").sum()),
        n_failed=int((status == "failed").sum()),
        n_tested=int(tested.sum()),
        n_counted=n_counted,
        n_rejected=n_rejected,
        rate=n_rejected / n_counted if n_counted else np.nan,
        low=float(low),
        high=float(high),
    )


class Uniformity(NamedTuple):
    """Kolmogorov-Smirnov and Anderson-Darling tests of n p-values against U(0, 1)."""

    n: int
    ks: float
    ks_p_value: float
    ad: float
    ad_p_value: float


def uniformity(p_values: ArrayLike) -> Uniformity:
    """Test whether p-values of true null hypotheses are uniform; NaN for all but n if there are none."""
    u = np.sort(np.asarray(p_values, np.float64))
    if not len(u):
        return Uniformity(0, *[np.nan] * 4)
    if u[0] < 0 or u[-1] > 1 or np.isnan(u).any():
        raise InvalidInputError("p-values must lie in [0, 1]")
    from scipy import stats  # slow to import

    ks = stats.kstest(u, "uniform")
    weights = 2 * np.arange(1, len(u) + 1) - 1
    with np.errstate(divide="ignore"):
        ad = -len(u) - float((weights * (np.log(u) + np.log1p(-u[::-1]))).mean())
    return Uniformity(len(u), float(ks.statistic), float(ks.pvalue), ad, _anderson_darling_tail(ad))


def uniform_quantiles(p_values: ArrayLike, points: int = 200) -> dict[str, NDArray[np.float64]]:
    """For a plot of p-values against the uniform distribution: levels ``uniform`` and their ``quantile``, (points,)."""
    levels = (np.arange(points) + 0.5) / points
    return {"uniform": levels, "quantile": np.quantile(np.asarray(p_values, np.float64), levels)}


def _anderson_darling_tail(statistic: float) -> float:
    """P(A2 > statistic) for a fully specified distribution, n to infinity.

    Marsaglia & Marsaglia, Evaluating the Anderson-Darling Distribution, J. Stat. Software 9(2), 2004: absolute error
    below 2e-6; scipy and statsmodels have only the cases with estimated parameters.
    """
    z = statistic
    if not np.isfinite(z):
        return 0.0
    if z <= 0:
        return 1.0
    if z < 2:
        poly = (2.00012, 0.247105, -0.0649821, 0.0347962, -0.011672, 0.00168691)
        return 1 - float(np.exp(-1.2337141 / z) / np.sqrt(z) * np.polyval(poly[::-1], z))
    poly = (1.0776, -2.30695, 0.43424, -0.082433, 0.008056, -0.0003146)
    return float(-np.expm1(-np.exp(np.polyval(poly[::-1], z))))
