"""Truncated normal and chi distributions in log space: p-values, bounds on them, and confidence intervals.

A selective p-value is a ratio of probabilities of two regions, which may both be as small as 1e-300 (a statistic far
out) or as narrow as 1e-12 (a short truncation interval). Hence everything is a logarithm of a probability, and the
probability of a narrow interval is integrated, not subtracted.

The null distribution of the statistic, without truncation, is one of

* ``"normal"``, standard normal;
* ``("chi", df)``, on [0, inf);
* ``("beta", a, b, scale)``: scale * sqrt(B) with B ~ Beta(a, b), on [0, scale]: what becomes of a chi statistic whose
  covariance is estimated (:mod:`sigad.inference.beta`);
* ``("signed-beta", b, scale)``: scale * R, with R symmetric and R^2 ~ Beta(1/2, b): what becomes of a normal one.

The scale is a number, or an array (...,) with one for each statistic of a batch.
Source: Lee et al. (2016) for the truncated normal; Niihori et al. (NeurIPS 2025), Theorem 4.1, for the truncated chi.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sigad.errors import InvalidInputError
from sigad.inference import beta
from sigad.inference import region as rg
from sigad.inference.quadrature import integrate, log_difference

Null = (
    Literal["normal"]
    | tuple[Literal["chi"], int]
    | tuple[Literal["beta"], float, float, ArrayLike]
    | tuple[Literal["signed-beta"], float, ArrayLike]
)
Alternative = Literal["two-sided", "equal-tailed", "greater", "less"]
ALTERNATIVES = ("two-sided", "equal-tailed", "greater", "less")


def check_alternative(alternative: str) -> None:
    """Raise InvalidInputError for what is no alternative."""
    if alternative not in ALTERNATIVES:
        raise InvalidInputError(f"alternative must be one of {', '.join(ALTERNATIVES)}, not {alternative!r}")


# Below this, the incomplete gamma functions of scipy underflow, and their logarithm is taken from an expansion.
_TINY = 1e-280
_FARTHEST = 1e150


def log_mass(lower: ArrayLike, upper: ArrayLike, null: Null = "normal") -> NDArray[np.float64]:
    """Log probability of each interval [lower, upper]; -inf where ``lower >= upper``. Shapes broadcast."""
    lower, upper = _within_reach(lower), _within_reach(upper)
    kind, numbers, scale = _parts(null)
    if scale is not None:
        lower, upper = np.clip(lower / scale, -1.0, 1.0), np.clip(upper / scale, -1.0, 1.0)
    lower, upper = np.broadcast_arrays(lower, upper)
    if kind == "signed-beta":
        # Its absolute value has the law of half the mass; an interval that holds 0 has a part on either side.
        half: Null = ("beta", 0.5, numbers[0], 1.0)
        sides = [log_mass(np.maximum(lower, 0.0), upper, half), log_mass(np.maximum(-upper, 0.0), -lower, half)]
        return np.logaddexp(*sides) - np.log(2)
    if kind == "normal":
        # By symmetry every interval can be moved to where its end nearest to 0 is positive: only upper tails are used.
        flip = lower + np.where(np.isinf(upper) & np.isinf(lower), 0.0, upper) < 0
        lower, upper = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    else:
        lower, upper = np.maximum(lower, 0.0), np.maximum(upper, 0.0)
    law = {"normal": _normal_parts, "chi": _chi_parts, "beta": beta.log_mass}[kind]
    result = np.full(lower.shape, -np.inf)
    some = lower < upper
    if some.any():
        result[some] = law(lower[some], upper[some], *numbers)
    return result


def log_density(z: ArrayLike, null: Null = "normal") -> NDArray[np.float64]:
    """Log density at each point (...,) of the law of a single statistic; -inf where it has no probability."""
    z = np.asarray(z, np.float64)
    kind, numbers, scale = _parts(null)
    if kind == "normal":
        return _normal_log_density(z)
    x = z if scale is None else z / scale
    if kind == "signed-beta":
        x, numbers = np.maximum(np.abs(x), np.finfo(float).tiny), (0.5, *numbers)
    inside = (x > 0) & (x < (np.inf if scale is None else 1.0))
    density = _chi_log_density if kind == "chi" else beta.log_density
    halves = np.log(2 if kind == "signed-beta" else 1)
    log_scale = 0.0 if scale is None else np.log(scale)
    return np.where(inside, density(np.where(inside, x, 0.5), *numbers) - halves - log_scale, -np.inf)


def support(null: Null) -> tuple[float, float]:
    """The smallest interval that has all the probability; the null is that of a single statistic."""
    kind, _, scale = _parts(null)
    high = np.inf if scale is None else float(scale)
    return (-high if kind in ("normal", "signed-beta") else 0.0), high


def unit(null: Null) -> float:
    """A length on the line of a single statistic that is the same length of the data wherever the statistic lies.

    1 for a known covariance. Where it is estimated, the estimate that the statistic is measured in moves with it, and
    what stays is a share of the null's scale, here one that is about 1.
    """
    _, numbers, scale = _parts(null)
    return 1.0 if scale is None else float(scale) / (2 * numbers[-1]) ** 0.5


def of_statistics(null: Null, which) -> Null:
    """The null distributions of some of the statistics of a batch (which of them: anything that indexes an array)."""
    scale = _parts(null)[2]
    return null if scale is None or not scale.ndim else _of_scale(null, scale[which])


def _of_scale(null: Null, scale: ArrayLike) -> Null:
    """The same null distribution, but of this scale, where it has one."""
    if isinstance(null, str):
        return null
    if null[0] == "beta":
        return "beta", null[1], null[2], scale
    if null[0] == "signed-beta":
        return "signed-beta", null[1], scale
    return null


def _parts(null: Any) -> tuple[str, tuple[float, ...], NDArray | None]:
    """The name of a null distribution, its parameters, and its scale; InvalidInputError unless it is one."""
    parts: Sequence[Any] = [null] if isinstance(null, str) else null if isinstance(null, (tuple, list)) else []
    kind, *numbers = parts or [None]
    scale = None
    if kind in ("beta", "signed-beta") and len(numbers) == (3 if kind == "beta" else 2):
        *numbers, scale = numbers
        scale = np.asarray(scale, np.float64)
    elif not ((kind == "normal" and not numbers) or (kind == "chi" and len(numbers) == 1)):
        raise InvalidInputError(
            f'null must be "normal", ("chi", df), ("beta", a, b, scale) or ("signed-beta", b, scale), not {null!r}'
        )
    if not all(0 < x < np.inf for x in numbers) or (scale is not None and not (scale > 0).all()):
        raise InvalidInputError(f"null must have positive parameters (df > 0, scale > 0), not {null!r}")
    return kind, tuple(map(float, numbers)), scale


def _within_reach(bound: ArrayLike) -> NDArray:
    """Bounds whose square could overflow become infinite: beyond them, even the logarithm of a tail is."""
    bound = np.asarray(bound, np.float64)
    return np.where(np.abs(bound) > _FARTHEST, np.copysign(np.inf, bound), bound)


def _normal_log_density(z: NDArray) -> NDArray:
    return -0.5 * z * z - 0.5 * np.log(2 * np.pi)


def _normal_parts(a: NDArray, b: NDArray) -> NDArray:
    width, reach = b - a, np.maximum(np.abs(a), np.abs(b))
    with np.errstate(invalid="ignore", over="ignore"):
        narrow = (width <= 2.0) & (width * reach <= 8.0)
    result = np.empty_like(a)
    if narrow.any():
        result[narrow] = integrate(_normal_log_density, a[narrow], b[narrow])
    if narrow.all():
        return result
    a, b = a[~narrow], b[~narrow]
    result[~narrow] = np.where(
        a > 0,
        log_difference(special.log_ndtr(-a), special.log_ndtr(-b)),
        np.log1p(-(special.ndtr(np.minimum(a, 0.0)) + special.ndtr(-b))),
    )
    return result


def _chi_log_density(z: NDArray, df: float) -> NDArray:
    return (df - 1) * np.log(z) - 0.5 * z * z + ((1 - df / 2) * np.log(2) - special.gammaln(df / 2))


def _chi_parts(a: NDArray, b: NDArray, df: float) -> NDArray:
    width = b - a
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        slope = np.maximum(np.abs((df - 1) / a - a), np.abs((df - 1) / b - b))
        narrow = (b <= 1.5 * a) & (width * slope <= 8.0) & (width**2 * ((df - 1) / a**2 + 1) <= 4.0)
    result = np.empty_like(a)
    if narrow.any():
        result[narrow] = integrate(lambda z: _chi_log_density(z, df), a[narrow], b[narrow])
    if narrow.all():
        return result
    a, b = a[~narrow], b[~narrow]
    median = np.sqrt(special.gammaincinv(df / 2, 0.5) * 2)
    wide = np.empty_like(a)
    above, below = a >= median, b <= median
    across = ~(above | below)
    wide[above] = log_difference(_chi_log_sf(a[above], df), _chi_log_sf(b[above], df))
    wide[below] = log_difference(_chi_log_cdf(b[below], df), _chi_log_cdf(a[below], df))
    wide[across] = np.log1p(
        -(special.gammainc(df / 2, 0.5 * a[across] ** 2) + special.gammaincc(df / 2, 0.5 * b[across] ** 2))
    )
    result[~narrow] = wide
    return result


def _chi_log_sf(z: NDArray, df: float) -> NDArray:
    s, x = df / 2, 0.5 * z * z
    q = special.gammaincc(s, x)
    with np.errstate(divide="ignore"):
        result = np.log(q)
    deep = (q < _TINY) & np.isfinite(z)
    if deep.any():
        result[deep] = _log_gammaincc_far(s, x[deep])
    return result


def _chi_log_cdf(z: NDArray, df: float) -> NDArray:
    s, x = df / 2, 0.5 * z * z
    p = special.gammainc(s, x)
    with np.errstate(divide="ignore"):
        result = np.log(p)
    deep = (p < _TINY) & (z > 0)
    if deep.any():
        result[deep] = _log_gammainc_near_zero(s, z[deep])
    return result


def _log_gammaincc_far(s: float, x: NDArray) -> NDArray:
    """Log of the regularised upper incomplete gamma function far above its median: Lentz's continued fraction."""
    b = x + 1 - s
    c, d = np.full_like(x, 1e300), 1 / b
    h = d.copy()
    step = np.full_like(x, np.inf)
    for i in range(1, 10_000):
        # What has converged stays as it is: a result must not depend on what else is in the batch.
        active = np.abs(step - 1) >= 1e-15
        if not active.any():
            break
        a = -i * (i - s)
        b = b + 2
        d = 1 / (a * d + b)
        c = b + a / c
        step = np.where(active, c * d, 1.0)
        h = h * step
    return s * np.log(x) - x - special.gammaln(s) + np.log(h)


def _log_gammainc_near_zero(s: float, z: NDArray) -> NDArray:
    """Log of the regularised lower incomplete gamma function at z^2/2, far below its median: the power series."""
    x = 0.5 * z * z
    term = total = np.ones_like(x)
    for i in range(1, 10_000):
        term = np.where(term > 1e-16 * total, term * x / (s + i), 0.0)
        total = total + term
        if not term.any():
            break
    # log x is taken from z, which does not underflow where z^2 does.
    return s * (2 * np.log(z) - np.log(2)) - x - special.gammaln(s + 1) + np.log(total)


def _log_parts(region: NDArray, cuts: NDArray, null: Null) -> NDArray:
    """Log probability of the parts into which the increasing cuts (..., c) divide each region, (..., c + 1)."""
    edge = np.full((*cuts.shape[:-1], 1), np.inf)
    bounds = np.concatenate([-edge, cuts, edge], axis=-1)[..., None]
    lower, upper = (np.clip(region[..., None, :, side], bounds[..., :-1, :], bounds[..., 1:, :]) for side in (0, 1))
    masses = log_mass(lower, upper, null)
    top = masses.max(axis=-1, initial=-np.inf)
    shift = np.where(np.isneginf(top), 0.0, top)
    # Summed one after the other, so that padding does not change how the sum is rounded.
    total = np.add.accumulate(np.exp(masses - shift[..., None]), axis=-1)[..., -1:].sum(axis=-1)
    with np.errstate(divide="ignore"):
        return np.log(total) + shift


def _left_right(statistic: NDArray, region: NDArray, null: Null) -> tuple[NDArray, NDArray]:
    parts = _log_parts(region, statistic[..., None], null)
    return parts[..., 0], parts[..., 1]


def _extreme_central(statistic: NDArray, region: NDArray, null: Null) -> tuple[NDArray, NDArray]:
    size = np.abs(statistic)
    parts = _log_parts(region, np.stack([-size, size], axis=-1), null)
    return np.logaddexp(parts[..., 2], parts[..., 0]), parts[..., 1]


def _split(statistic: NDArray, region: NDArray, null: Null, alternative: Alternative) -> tuple[NDArray, NDArray]:
    """Log probabilities of the part of the region that counts as at least as extreme, and of the rest."""
    if alternative == "two-sided":
        return _extreme_central(statistic, region, null)
    left, right = _left_right(statistic, region, null)
    return (left, right) if alternative == "less" else (right, left)


def _log_share(part: NDArray, rest: NDArray) -> NDArray:
    """log(exp(part) / (exp(part) + exp(rest))); 0/0 counts as 1, the conservative value."""
    with np.errstate(invalid="ignore"):
        share = part - np.logaddexp(part, rest)
    return np.where(np.isneginf(part) & np.isneginf(rest), 0.0, share)


def _checked(
    statistic: ArrayLike, region: ArrayLike, null: Null, alternative: str
) -> tuple[NDArray, NDArray, Null, NDArray]:
    """Statistic and region in units of the null's scale, the null with scale 1, and the scale (...,)."""
    statistic, region = np.asarray(statistic, np.float64), np.asarray(region, np.float64)
    check_alternative(alternative)
    scale = _parts(null)[2]
    if region.ndim < 2 or region.shape[-1] != 2 or np.isnan(region).any():
        raise InvalidInputError(f"region must have shape (..., m, 2) without NaN, not {region.shape}")
    if not np.isfinite(statistic).all():
        raise InvalidInputError("the statistic must be finite")
    inside = rg.contains(region, statistic)
    if not inside.all():
        raise InvalidInputError(
            "the truncation region must contain the observed statistic: "
            f"{np.count_nonzero(~inside)} of {inside.size} do not lie in their region"
        )
    if scale is None:
        return statistic, region, null, np.ones(())
    if (np.abs(statistic) > scale).any():
        raise InvalidInputError("the statistic must not exceed the scale of its null distribution")
    return statistic / scale, region / scale[..., None, None], _of_scale(null, 1.0), scale


def truncated_pvalue(
    statistic: ArrayLike,
    region: ArrayLike,
    *,
    null: Null = "normal",
    alternative: Alternative = "two-sided",
    log: bool = False,
) -> NDArray[np.float64]:
    """Selective p-value: probability of a statistic at least as extreme, given that it falls into the region.

    Parameters
    ----------
    statistic : (...,) observed statistics; each must lie in its region.
    region : (..., m, 2) truncation regions, sorted and disjoint (:mod:`sigad.inference.region`).
    null : distribution of the statistic without truncation, as the module's docstring lists them.
    alternative : ``"two-sided"`` P(|Z| >= \\|T\\|), the papers' choice; ``"equal-tailed"`` 2 min(F, 1 - F) with F the
        truncated cdf; ``"greater"`` and ``"less"`` as in scipy. For chi and beta, two-sided and greater are the same.
    log : return the natural logarithm of the p-value, which does not underflow.

    Raises
    ------
    InvalidInputError
        for NaN, an unknown null or alternative, or a statistic outside its region.
    """
    statistic, region, null, _ = _checked(statistic, region, null, alternative)
    if alternative == "equal-tailed":
        left, right = _left_right(statistic, region, null)
        log_p = np.minimum(np.log(2) + np.minimum(_log_share(left, right), _log_share(right, left)), 0.0)
    else:
        log_p = np.minimum(_log_share(*_split(statistic, region, null, alternative)), 0.0)
    return log_p if log else np.exp(log_p)


def pvalue_bounds(
    statistic: ArrayLike,
    region: ArrayLike,
    searched: ArrayLike,
    *,
    null: Null = "normal",
    alternative: Alternative = "two-sided",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds on the p-value of the full search when only a part of the line has been searched.

    Parameters
    ----------
    statistic, null, alternative : as in :func:`truncated_pvalue`.
    region : (..., m, 2) the part of the truncation region that lies in ``searched``.
    searched : (..., k, 2) the part of the line that has been searched, sorted and disjoint. Whether a point outside
        of it belongs to the truncation region is unknown.

    Returns
    -------
    p_low, p_high : (...,) the smallest and the largest p-value over all ways in which the search can continue.
    """
    statistic, region, null, scale = _checked(statistic, region, null, alternative)
    unknown = rg.complement(np.asarray(searched, np.float64) / scale[..., None, None])
    if alternative == "equal-tailed":
        left, right = _left_right(statistic, region, null)
        more_left, more_right = _left_right(statistic, unknown, null)
        # F and 1 - F at both ends, each from its own logarithms: neither is obtained by a subtraction from 1.
        f_low, s_high = (
            _log_share(left, np.logaddexp(right, more_right)),
            _log_share(np.logaddexp(right, more_right), left),
        )
        f_high, s_low = (
            _log_share(np.logaddexp(left, more_left), right),
            _log_share(right, np.logaddexp(left, more_left)),
        )
        log_low = np.log(2) + np.minimum(f_low, s_low)
        log_high = np.log(2) + np.where(
            (f_low <= np.log(0.5)) & (f_high >= np.log(0.5)), np.log(0.5), np.minimum(f_high, s_high)
        )
    else:
        extreme, rest = _split(statistic, region, null, alternative)
        more_extreme, more_rest = _split(statistic, unknown, null, alternative)
        log_low = _log_share(extreme, np.logaddexp(rest, more_rest))
        # Nothing found yet: 0/0 above means that the p-value may still be anything.
        log_low = np.where(np.isneginf(extreme), -np.inf, log_low)
        log_high = _log_share(np.logaddexp(extreme, more_extreme), rest)
    return np.exp(np.minimum(log_low, 0.0)), np.exp(np.minimum(log_high, 0.0))


def mean_confidence_interval(
    statistic: float, region: ArrayLike, *, level: float = 0.95, largest: float = 1e4
) -> tuple[float, float]:
    """Selective confidence interval for the mean of a normal with unit variance, truncated to the region.

    Inverts the equal-tailed test: the interval holds the means mu for which the observed statistic lies between the
    (1 - level)/2 and (1 + level)/2 quantiles of N(mu, 1) truncated to the region (Lee et al. 2016, section 5).

    Parameters
    ----------
    statistic : observed statistic, inside the region.
    region : (m, 2) truncation region.
    level : coverage probability.
    largest : a bound that lies further than this from the statistic is returned as infinite.

    Returns
    -------
    lower, upper : bounds of the confidence interval, in units of the standard deviation.
    """
    value, region, _, _ = _checked(statistic, region, "normal", "greater")
    if not 0 < level < 1:
        raise InvalidInputError(f"level must lie in (0, 1), not {level}")

    def log_odds(mu: float) -> float:
        """Log odds that the truncated variable exceeds the statistic; increases with mu."""
        left, right = _left_right(value - mu, region - mu, "normal")
        return float(right - left)

    def solve(share: float) -> float:
        target = np.log(share) - np.log1p(-share)
        gap = lambda mu: np.clip(log_odds(mu) - target, -1e9, 1e9)  # noqa: E731
        sign = 1.0 if gap(float(value)) < 0 else -1.0
        near, step = float(value), 1.0
        while step <= largest:
            far = float(value) + sign * step
            if sign * gap(far) >= 0:
                from scipy import optimize  # slow to import, and needed here only

                return optimize.brentq(gap, min(near, far), max(near, far), xtol=1e-12, rtol=1e-12)
            near, step = far, 2 * step
        return sign * np.inf

    tail = (1 - level) / 2
    return solve(tail), solve(1 - tail)
