"""Truncated distributions against mpmath, far into the tails, and the properties of bounds and confidence intervals."""

import functools

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sigad.errors import InvalidInputError
from sigad.inference import region as rg
from sigad.inference.truncated import (
    ALTERNATIVES,
    log_density,
    log_mass,
    mean_confidence_interval,
    pvalue_bounds,
    support,
    truncated_pvalue,
    unit,
)

# Every probability below is a difference of the two tails on the side of the mode where it lies; the digits are for the
# difference (the sum of the tails of one side would need 400 to see the other side).
DIGITS = 150
TOLERANCE = 1e-9

DEGREES = [1, 2, 3, 10, 200, 2700, 10_000]
# Scales are powers of two: a statistic is then divided by them without rounding, and the oracle sees the same number.
BETAS = [("beta", a, b, 4.0) for a, b in ((0.5, 0.5), (1, 0.5), (5, 8), (5, 500), (500, 2), (1350, 1350))]
SIGNED = [("signed-beta", b, 8.0) for b in (0.5, 1, 10, 2000)]
NULLS = ["normal", *(("chi", df) for df in DEGREES), *BETAS, *SIGNED]


@functools.cache
def below(z, null):
    """The cdf, exact to many digits."""
    with mp.workdps(DIGITS):
        if z == np.inf:
            return mp.mpf(1)
        if null == "normal":
            return mp.mpf(0) if z == -np.inf else mp.erfc(-mp.mpf(z) / mp.sqrt(2)) / 2
        if null[0] == "signed-beta":
            return above(-z, null)
        if null[0] == "beta":
            y = min(max(mp.mpf(z) / null[3], 0), 1) ** 2
            return mp.betainc(null[1], null[2], 0, y, regularized=True)
        return mp.gammainc(mp.mpf(null[1]) / 2, 0, mp.mpf(z) ** 2 / 2, regularized=True) if z > 0 else mp.mpf(0)


@functools.cache
def above(z, null):
    """1 - cdf; apart, so that far upper tails keep all digits as well."""
    with mp.workdps(DIGITS):
        if null == "normal":
            return below(-z, null)
        if z == np.inf:
            return mp.mpf(0)
        if null[0] == "signed-beta":
            half = above(abs(z), ("beta", 0.5, null[1], null[2])) / 2
            return half if z >= 0 else 1 - half
        if null[0] == "beta":
            y = min(max(mp.mpf(z) / null[3], 0), 1) ** 2
            return mp.betainc(null[2], null[1], 0, 1 - y, regularized=True)
        return mp.gammainc(mp.mpf(null[1]) / 2, mp.mpf(z) ** 2 / 2, mp.inf, regularized=True) if z > 0 else mp.mpf(1)


def mass(low, high, null):
    with mp.workdps(DIGITS):
        if low >= high:
            return mp.mpf(0)
        if low >= centre_and_reach(null)[0]:
            return above(float(low), null) - above(float(high), null)
        return below(float(high), null) - below(float(low), null)


def masses(intervals, low, high, null):
    with mp.workdps(DIGITS):
        return mp.fsum(mass(max(a, low), min(b, high), null) for a, b in intervals)


def exact_pvalue(t, intervals, null, alternative):
    with mp.workdps(DIGITS):
        left, right = masses(intervals, -np.inf, t, null), masses(intervals, t, np.inf, null)
        total = left + right
        if alternative == "greater":
            return right / total
        if alternative == "less":
            return left / total
        if alternative == "equal-tailed":
            return 2 * min(left, right) / total
        size = abs(t)
        return (masses(intervals, size, np.inf, null) + masses(intervals, -np.inf, -size, null)) / total


def relative_error(log_value, exact):
    with mp.workdps(DIGITS):
        return float(abs(mp.expm1(mp.mpf(float(log_value)) - mp.log(exact))))


def centre_and_reach(null):
    """Around which point, and how far, 1e-300 and less is reached."""
    if null[0] == "beta":
        centre = null[3] * np.sqrt(null[1] / (null[1] + null[2]))
        return centre, max(centre, null[3] - centre)
    if null[0] == "signed-beta":
        return 0.0, null[2]
    return (0.0, 45.0) if null == "normal" else (np.sqrt(null[1]), 38.0)


def random_intervals(rng, null, m):
    centre, reach = centre_and_reach(null)
    start = centre + rng.uniform(-min(reach, centre) if centre else -reach, reach)
    bounds = start + np.cumsum(10.0 ** rng.uniform(-12, 1, 2 * m))
    if rng.random() < 0.15:
        bounds[-1] = np.inf
    if rng.random() < 0.1:
        bounds[0] = -np.inf if null == "normal" else support(null)[0]
    low, high = support(null)
    return np.clip(bounds, low, high).reshape(m, 2)


@pytest.mark.parametrize("null", NULLS, ids=str)
def test_log_mass(null):
    rng = np.random.default_rng(1)
    intervals = np.concatenate([random_intervals(rng, null, 1) for _ in range(40)])
    intervals = intervals[intervals[:, 0] < intervals[:, 1]]
    found = log_mass(intervals[:, 0], intervals[:, 1], null)
    assert np.isfinite(found).all()
    errors = [relative_error(f, mass(a, b, null)) for f, (a, b) in zip(found, intervals, strict=True)]
    assert max(errors) <= TOLERANCE


@pytest.mark.parametrize("null", NULLS, ids=str)
def test_pvalues(null):
    """Regions of one to four intervals anywhere, with widths and gaps from 1e-12 to 10, all alternatives."""
    rng = np.random.default_rng(2)
    for _ in range(15):
        region = rg.as_region(random_intervals(rng, null, rng.integers(1, 5)))
        if len(region) == 0:  # 1e-12 is less than the spacing of the numbers there
            continue
        low, high = region[rng.integers(len(region))]
        low, high = max(low, -60.0), min(high, max(low, -60.0) + 3.0)
        t = rng.choice([low, high, rng.uniform(low, high)], p=[0.1, 0.1, 0.8])
        for alternative in ALTERNATIVES:
            exact = exact_pvalue(t, region, null, alternative)
            log_p = truncated_pvalue(t, region, null=null, alternative=alternative, log=True)
            if exact == 0:
                assert log_p == -np.inf
                continue
            assert relative_error(log_p, exact) <= TOLERANCE, (t, region, alternative)
            p = truncated_pvalue(t, region, null=null, alternative=alternative)
            assert 0 <= p <= 1
            if exact > 1e-300:
                assert abs(p / float(exact) - 1) <= TOLERANCE


@pytest.mark.parametrize("t", [-60.0, -40.0, -8.0, 0.0, 5.0, 12.0, 37.0, 40.0, 60.0])
@pytest.mark.parametrize("width", [1e-12, 1e-3, 1.0, 15.0])
def test_normal_far_out(t, width):
    region = np.array([[-91.0, -90.0], [t - width, t + width], [92.0, np.inf]])
    for alternative in ALTERNATIVES:
        log_p = truncated_pvalue(t, region, alternative=alternative, log=True)
        assert relative_error(log_p, exact_pvalue(t, region, "normal", alternative)) <= TOLERANCE, alternative


@pytest.mark.parametrize("df", [1, 10, 2700, 10_000])
def test_tails_where_double_precision_ends(df):
    """Upper and lower tails from 1e-250 to 1e-330, across the change of formula at 1e-280."""
    null = ("chi", df)
    for exponent in (-250, -279.5, -280.5, -300, -330):
        target = exponent * np.log(10)
        low, high = np.sqrt(df), np.sqrt(df) + 60
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if log_mass(middle, np.inf, null) > target else (low, middle)
        assert abs(float(mp.log(above(low, null))) - target) < 1e-6
        assert relative_error(log_mass(low, np.inf, null), above(low, null)) <= TOLERANCE
        low, high = np.sqrt(df) * 1e-200, np.sqrt(df)
        for _ in range(1100):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if log_mass(0.0, middle, null) > target else (middle, high)
        if high > 1e-150:
            assert relative_error(log_mass(0.0, high, null), below(high, null)) <= TOLERANCE


@pytest.mark.parametrize(("a", "b"), [(5, 500), (50, 3000), (1350, 1350)])
def test_beta_tails_where_double_precision_ends(a, b):
    """Both tails at 1e-250 to 1e-330, and parts of them, across the change of formula at 1e-280."""
    null = ("beta", a, b, 1.0)
    middle = np.sqrt(a / (a + b))
    for exponent in (-250, -279.5, -280.5, -300, -330):
        for tail, outer in ((lambda z: log_mass(0.0, z, null), 0.0), (lambda z: log_mass(z, 1.0, null), 1.0)):
            near, far = middle, outer
            for _ in range(300):
                z = 0.5 * (near + far)
                near, far = (z, far) if tail(z) > exponent * np.log(10) else (near, z)
            exact = below(near, null) if outer == 0 else above(near, null)
            assert exponent - 1 < mp.log10(exact) < exponent + 1
            assert relative_error(tail(near), exact) <= TOLERANCE
            closer = near + 0.01 * (middle - near)
            ends = sorted((near, closer))
            assert relative_error(log_mass(*ends, null), mass(*ends, null)) <= TOLERANCE


@pytest.mark.parametrize("null", [*BETAS, *SIGNED], ids=str)
def test_next_to_the_end_of_the_line(null):
    """Where the square of the share of the scale differs from 1 by little, where rounding leaves least of it."""
    scale = null[-1]
    for power in (20, 26, 27, 28, 50):
        low, high = scale * (1 - 0.7 * 2.0**-power), scale * (1 - 0.3 * 2.0**-power)
        for ends in ((low, high), (low, scale)):
            exact = mass(*ends, null)
            if exact > mp.mpf(10) ** -5000:
                assert relative_error(log_mass(*ends, null), exact) <= TOLERANCE


def test_beta_laws_of_a_batch_have_scales_of_their_own():
    rng = np.random.default_rng(6)
    t, scale = rng.uniform(0.5, 1.5, 20), rng.uniform(2, 5, 20)
    region = np.stack([t - 0.3, t + 0.4], -1)[:, None, :]
    searched = np.stack([t - 0.5, t + 0.4], -1)[:, None, :]
    for parameters in (("beta", 2, 7), ("signed-beta", 4)):
        together = truncated_pvalue(t, region, null=(*parameters, scale))
        bounds = pvalue_bounds(t, region, searched, null=(*parameters, scale))
        for i in range(20):
            null = (*parameters, scale[i])
            assert together[i] == truncated_pvalue(t[i], region[i], null=null)
            single = pvalue_bounds(t[i], region[i], searched[i], null=null)
            assert bounds[0][i] == single[0] <= together[i] <= single[1] == bounds[1][i]


def test_beta_is_what_becomes_of_an_unknown_variance():
    """Without selection: Student's t, and Hotelling's F."""
    t, df, d = 2.3, 9, 4
    p = truncated_pvalue(t, rg.WHOLE_LINE, null=("signed-beta", df / 2, np.sqrt(t**2 + df)))
    assert p == pytest.approx(2 * stats.t.sf(t, df), rel=1e-12)
    f = t**2 / (d * df) * (df - d + 1)
    p = truncated_pvalue(t, rg.WHOLE_LINE, null=("beta", d / 2, (df - d + 1) / 2, np.sqrt(t**2 + df)))
    assert p == pytest.approx(stats.f.sf(f, d, df - d + 1), rel=1e-12)


def test_never_nan():
    """Whatever interval: a probability, or -inf for an empty one; and no warning for bounds of up to a million."""
    rng = np.random.default_rng(3)
    moderate = np.concatenate([[0.0, np.inf, -np.inf, 1e-100], rng.normal(size=20) * 10 ** rng.uniform(-3, 6, 20)])
    extreme = np.concatenate([moderate, [5e-324, 1e-200, 1e149, 1e150, 1e200, 1.7e308]])
    for values, strict in ((moderate, "raise"), (extreme, "ignore")):
        low, high = np.meshgrid(values, values)
        for null in NULLS:
            with np.errstate(all=strict, under="ignore"):
                result = log_mass(low, high, null)
            assert not np.isnan(result).any() and (result <= 1e-12).all()
            assert (result[low >= high] == -np.inf).all()


def test_without_truncation():
    assert truncated_pvalue(1.959963984540054, rg.WHOLE_LINE) == pytest.approx(0.05, rel=1e-12)
    assert truncated_pvalue(1.6448536269514722, rg.WHOLE_LINE, alternative="greater") == pytest.approx(0.05, rel=1e-12)
    assert truncated_pvalue(1.6448536269514722, rg.WHOLE_LINE, alternative="less") == pytest.approx(0.95, rel=1e-12)
    assert truncated_pvalue(0.0, rg.WHOLE_LINE, alternative="equal-tailed") == 1.0
    assert truncated_pvalue(np.sqrt(18.307038053275146), [[0, np.inf]], null=("chi", 10)) == pytest.approx(
        0.05, rel=1e-12
    )


@pytest.mark.parametrize(
    "null", ["normal", ("chi", 1), ("chi", 40), ("beta", 2.5, 0.5, 3.0), ("signed-beta", 4.0, 2.0)]
)
def test_density_is_the_mass_of_a_short_interval(null):
    low, high = np.clip(support(null), -9.0, 9.0)
    z = np.linspace(low, high, 203)[1:-1]
    half = 1e-6
    expected = log_mass(z - half, z + half, null) - np.log(2 * half)
    np.testing.assert_allclose(log_density(z, null), expected, rtol=1e-6, atol=1e-6)
    if np.isfinite(support(null)[1]):
        assert np.isneginf(log_density([high + 1e-9, -high - 1e-9], null)).all()


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_a_region_without_probability_gives_no_evidence(alternative):
    assert truncated_pvalue(2.0, [[2.0, 2.0]], alternative=alternative) == 1


def test_the_unit_of_length_is_a_share_of_the_scale_by_the_degrees_of_freedom_of_the_estimate():
    assert unit("normal") == unit(("chi", 5)) == 1
    assert unit(("signed-beta", 50.0, 10.0)) == unit(("beta", 2.0, 50.0, 10.0)) == 1


def test_two_sided_chi_is_greater():
    t, region = 3.0, [[0.5, 1.0], [2.5, 4.0]]
    null = ("chi", 7)
    assert truncated_pvalue(t, region, null=null) == truncated_pvalue(t, region, null=null, alternative="greater")


def test_batch_equals_one_by_one_to_the_last_bit():
    rng = np.random.default_rng(4)
    for null in NULLS:
        regions = [rg.as_region(random_intervals(rng, null, m)) for m in rng.integers(1, 12, size=30)]
        regions = [r for r in regions if len(r)]
        t = np.array([r[0].clip(-50, 200).mean() for r in regions])
        regions = [rg.union(r, [[value, np.nextafter(value, np.inf)]]) for r, value in zip(regions, t, strict=True)]
        padded = np.full((len(t), max(map(len, regions)), 2), np.inf)
        for row, r in zip(padded, regions, strict=True):
            row[: len(r)] = r
        for alternative in ALTERNATIVES:
            together = truncated_pvalue(t, padded, null=null, alternative=alternative, log=True)
            single = [
                truncated_pvalue(a, r, null=null, alternative=alternative, log=True)
                for a, r in zip(t, regions, strict=True)
            ]
            np.testing.assert_array_equal(together, single)


GRID = st.lists(st.integers(-40, 40), min_size=2, max_size=12, unique=True).map(lambda v: np.sort(v) / 8.0)


@st.composite
def searches(draw):
    """A full region, the statistic in it, and a searched window that contains the statistic."""
    bounds = draw(GRID)
    bounds = bounds[: len(bounds) // 2 * 2].reshape(-1, 2)
    low, high = bounds[draw(st.integers(0, len(bounds) - 1))]
    t = low + (high - low) * draw(st.floats(0.05, 0.95))
    if draw(st.booleans()):
        bounds = np.concatenate([bounds, [[5.0, np.inf]]])
    if draw(st.booleans()):
        bounds = np.concatenate([[[-np.inf, -5.0]], bounds])
    return rg.as_region(bounds), t, draw(GRID.map(lambda v: v[: len(v) // 2 * 2].reshape(-1, 2)))


@given(searches(), st.sampled_from(ALTERNATIVES), st.sampled_from(["normal", ("chi", 3), ("beta", 3, 2, 16.0)]))
@settings(max_examples=400)
def test_bounds_bracket_every_completion(search, alternative, null):
    region, t, window = search
    if null != "normal":
        region, t = rg.intersection(region + 6, [[0, np.inf]]), t + 6
        window = window + 6
    searched = rg.union(window, [[t - 0.1, t + 0.1]])
    found = rg.intersection(region, searched)
    low, high = pvalue_bounds(t, found, searched, null=null, alternative=alternative)
    assert 0 <= low <= high <= 1
    # The given region, all of the unknown, nothing of it, only its extreme and only its central part.
    unknown = rg.complement(searched)
    completions = [region, rg.union(found, unknown), found]
    completions += [rg.union(found, rg.intersection(unknown, part)) for part in ([[-np.inf, t]], [[t, np.inf]])]
    completions += [
        rg.union(found, rg.intersection(unknown, p)) for p in ([[-abs(t), abs(t)]], rg.complement([[-abs(t), abs(t)]]))
    ]
    p = np.array([truncated_pvalue(t, full, null=null, alternative=alternative) for full in completions])
    assert (low <= p * (1 + 1e-12)).all() and (p <= high * (1 + 1e-12)).all()
    if alternative != "equal-tailed":  # both bounds are attained
        assert p.min() == pytest.approx(low, rel=1e-9, abs=1e-300) and p.max() == pytest.approx(high, rel=1e-9)


@given(searches(), st.sampled_from(ALTERNATIVES))
@settings(max_examples=50)
def test_bounds_close_when_the_search_is_exhaustive(search, alternative):
    region, t, window = search
    p = truncated_pvalue(t, region, alternative=alternative)
    low, high = pvalue_bounds(t, region, rg.WHOLE_LINE, alternative=alternative)
    assert low == pytest.approx(p, rel=1e-12) and high == pytest.approx(p, rel=1e-12)
    # Searching more never widens them.
    less = rg.union(window, [[t - 0.1, t + 0.1]])
    more = rg.union(less, [[t - 1.0, t + 1.0]])
    wide = pvalue_bounds(t, rg.intersection(region, less), less, alternative=alternative)
    narrow = pvalue_bounds(t, rg.intersection(region, more), more, alternative=alternative)
    assert wide[0] <= narrow[0] * (1 + 1e-12) and narrow[1] <= wide[1] * (1 + 1e-12)


def test_bounds_of_a_window_without_extreme_part():
    """Only what is less extreme has been searched: nothing is known about the lower bound."""
    low, high = pvalue_bounds(2.0, [[0.0, 2.0]], [[-2.0, 2.0]])
    assert low == 0.0 and 0 < high < 1
    # What has been found has no probability at all: nothing is known.
    assert pvalue_bounds(2.0, [[2.0, 2.0]], rg.WHOLE_LINE) == (0.0, 1.0)


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(
    ("t", "region"),
    [
        (1.0, [[-np.inf, np.inf]]),
        (2.1, [[2.0, np.inf]]),
        (3.0, [[2.0, 3.5]]),
        (-3.2, [[-np.inf, -3.0], [3.0, np.inf]]),
        (0.4, [[-4.0, -2.0], [0.0, 1.0], [2.5, np.inf]]),
        (30.0, [[29.0, np.inf]]),
    ],
)
def test_confidence_interval_inverts_the_test(t, region, level):
    """At either bound, the exact equal-tailed p-value of that mean equals 1 - level."""
    low, high = mean_confidence_interval(t, region, level=level)
    assert low < high
    for mean, side in ((low, "greater"), (high, "less")):
        if np.isinf(mean):
            continue
        with mp.workdps(DIGITS):
            shifted = [(a - mean, b - mean) for a, b in region]
            left, right = masses(shifted, -np.inf, t - mean, "normal"), masses(shifted, t - mean, np.inf, "normal")
            share = (right if side == "greater" else left) / (left + right)
        assert float(share) == pytest.approx((1 - level) / 2, rel=1e-6)


def test_confidence_interval_without_truncation():
    low, high = mean_confidence_interval(1.0, rg.WHOLE_LINE)
    assert (low, high) == (
        pytest.approx(1 - 1.959963984540054, abs=1e-9),
        pytest.approx(1 + 1.959963984540054, abs=1e-9),
    )


def test_confidence_interval_covers():
    """2,000 draws of N(0.5, 1) given [0, 1] or [1.5, inf): 0.9 within five standard errors (error probability 6e-7)."""
    rng = np.random.default_rng(5)
    z = rng.normal(0.5, 1, 10_000)
    region = np.array([[0.0, 1.0], [1.5, np.inf]])
    z = z[rg.contains(region, z)][:2000]
    bounds = np.array([mean_confidence_interval(t, region, level=0.9) for t in z])
    covered = ((bounds[:, 0] <= 0.5) & (0.5 <= bounds[:, 1])).mean()
    assert len(z) == 2000 and abs(covered - 0.9) <= 5 * np.sqrt(0.09 / len(z))


def test_confidence_interval_at_the_edge():
    """Close to an edge the interval reaches far, and at the edge itself it lies at infinity; it never is NaN."""
    low, high = mean_confidence_interval(2.00001, [[2.0, 3.0]])
    assert low == -np.inf and -3000 < high < -2000
    low, high = mean_confidence_interval(2.99999, [[2.0, 3.0]])
    assert high == np.inf and 2000 < low < 3000
    assert mean_confidence_interval(2.0, [[2.0, 3.0]]) == (-np.inf, -np.inf)
    assert mean_confidence_interval(3.0, [[2.0, 3.0]]) == (np.inf, np.inf)
    low, high = mean_confidence_interval(2.5, [[2.5 - 1e-9, 2.5 + 1e-9]])
    assert low == -np.inf and high == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: truncated_pvalue(3.0, [[0.0, 2.0]]), "must contain the observed statistic"),
        (lambda: truncated_pvalue([1.0, 3.0], [[[0.0, 2.0]], [[0.0, 2.0]]]), "1 of 2"),
        (lambda: truncated_pvalue(np.nan, [[0.0, 2.0]]), "finite"),
        (lambda: truncated_pvalue(1.0, [[0.0, np.nan]]), "without NaN"),
        (lambda: truncated_pvalue(1.0, [0.0, 2.0]), "shape"),
        (lambda: truncated_pvalue(1.0, [[0.0, 2.0]], alternative="both"), "two-sided, equal-tailed, greater, less"),
        (lambda: truncated_pvalue(1.0, [[0.0, 2.0]], null="chi"), 'must be "normal", '),
        (lambda: truncated_pvalue(1.0, [[0.0, 2.0]], null=("beta", 1, 2, 0.0)), "scale > 0"),
        (lambda: truncated_pvalue(1.0, [[0.0, 2.0]], null=("signed-beta", 1, 0.5)), "exceed the scale"),
        (lambda: truncated_pvalue(1.0, [[0.0, 2.0]], null=("chi", 0)), "df > 0"),
        (lambda: log_mass(0.0, 1.0, ("t", 3)), 'must be "normal", '),
        (lambda: mean_confidence_interval(1.0, [[0.0, 2.0]], level=95), "level must lie in"),
        (lambda: pvalue_bounds(3.0, [[0.0, 2.0]], [[0.0, 2.0]]), "must contain the observed statistic"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
