"""Multiple testing against statsmodels, and e-values against quadrature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests

from sigad.errors import InvalidInputError
from sigad.inference.multiple import (
    benjamini_hochberg,
    benjamini_yekutieli,
    e_benjamini_hochberg,
    holm,
    truncated_e_value,
)

PROCEDURES = {"holm": holm, "fdr_by": benjamini_yekutieli, "fdr_bh": benjamini_hochberg}


@pytest.mark.parametrize("method", PROCEDURES)
@settings(max_examples=20)  # statsmodels' Holm is slow
@given(st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=30))
def test_adjusted_p_values_are_those_of_statsmodels(method, p):
    ours = PROCEDURES[method](p)
    theirs = multipletests(np.nan_to_num(p, nan=1.0), method=method)[1]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-300)


def test_undetected_patches_count_among_all():
    detected = np.array([0.001, 0.02])
    image = np.array([0.001, *[np.nan] * 8, 0.02])
    np.testing.assert_allclose(holm(image)[[0, -1]], [0.01, 0.18])
    assert (holm(image)[1:-1] == 1).all() and (holm(image) >= np.concatenate([holm(detected), np.zeros(8)])[0]).all()
    np.testing.assert_array_equal(holm(np.stack([image, image]))[1], holm(image))
    for procedure in PROCEDURES.values():
        assert procedure(np.empty(0)).shape == (0,) and (procedure([np.nan, np.nan]) == 1).all()
        with pytest.raises(InvalidInputError):
            procedure([0.1, 1.5])


@given(st.lists(st.floats(0, 1e6) | st.just(np.nan), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_e_bh_by_its_definition(e, level):
    # Wang & Ramdas (2022): reject the k largest, k the largest number with e_(k) >= m / (k level).
    rejected = e_benjamini_hochberg(e) <= level
    filled = np.nan_to_num(np.array(e), nan=0.0)
    ranked = np.sort(filled)[::-1]
    ranks = np.flatnonzero(ranked * np.arange(1, len(e) + 1) * level >= len(e) * (1 - 1e-12))
    count = ranks[-1] + 1 if len(ranks) else 0
    assert rejected.sum() >= count and (not count or (filled[rejected] >= ranked[count - 1]).all())
    if rejected.sum() > count:  # only where a tie, or rounding at the border, lets more in
        assert ranked[rejected.sum() - 1] * rejected.sum() * level >= len(e) * (1 - 1e-9)


def test_adjusted_e_values_do_not_fall_where_evidence_does():
    # At level 0.15 the second largest rejects both: 9.9 >= 2 / (2 * 0.15), although 10 < 2 / 0.15.
    np.testing.assert_allclose(e_benjamini_hochberg([9.9, 10.0, 0.0, np.nan]), [2 / 9.9, 2 / 9.9, 1, 1])
    np.testing.assert_allclose(e_benjamini_hochberg([9.9, 10.0]), [1 / 9.9, 1 / 9.9])


def expectation(region, null, scale, law, searched=None):
    """E[e] under the null truncated to the region, by quadrature."""
    mass = sum(law.cdf(high) - law.cdf(low) for low, high in region)
    value = lambda t: float(truncated_e_value(t, region, null=null, scale=scale, searched=searched))  # noqa: E731
    total = sum(
        integrate.quad(lambda t: law.pdf(t) * value(t), low, min(high, 12.0), limit=200, epsabs=1e-12)[0]
        for low, high in region
    )
    return total / mass


@pytest.mark.parametrize("scale", [1.2, 3.0])
@pytest.mark.parametrize("region", [[[-np.inf, np.inf]], [[1.5, 2.5]], [[-3.0, -2.0], [1.0, 1.2], [2.9, np.inf]]])
def test_mean_of_an_e_value_is_one_given_the_selection(region, scale):
    region = np.array(region)
    # Beyond 12 standard deviations the null has no mass that counts, whatever the e-value there.
    clipped = np.clip(region, -12, 12)
    assert expectation(clipped, "normal", scale, stats.norm) == pytest.approx(1, abs=1e-7)
    positive = np.clip(region[region[:, 1] > 0], 0.0, 12)
    assert expectation(positive, ("chi", 4), scale, stats.chi(4)) == pytest.approx(1, abs=1e-7)


def test_what_was_not_searched_counts_against_it():
    region, searched = np.array([[1.0, 1.4], [2.0, 2.5]]), np.array([[0.5, 3.0]])
    known = truncated_e_value(2.2, region, scale=2.0)
    unknown = truncated_e_value(2.2, region, scale=2.0, searched=searched)
    for more in ([[-2.0, -1.0]], [[3.0, np.inf]], [[-np.inf, 0.5], [3.0, np.inf]]):
        completed = np.concatenate([region, more])
        assert unknown <= truncated_e_value(2.2, completed[np.argsort(completed[:, 0])], scale=2.0) * (1 + 1e-12)
    assert unknown < known
    assert expectation(region, "normal", 2.0, stats.norm, searched) < 1


def test_e_values_of_a_batch_and_far_out():
    region = np.array([[[1.0, 2.0], [np.inf, np.inf]], [[-5.0, -3.0], [3.0, 50.0]]])
    e = truncated_e_value([1.5, 37.0], region, scale=3.0)
    np.testing.assert_allclose(e[0], truncated_e_value(1.5, region[0, :1], scale=3.0))
    assert e[1] > 1e200
    for arguments in (
        {"scale": 1.0},
        {"null": ("beta", 1.0, 1.0, 4.0)},
        {"statistic": 9.0},
        {"statistic": np.nan},
        {"region": [1.0, 2.0]},
    ):
        with pytest.raises(InvalidInputError):
            truncated_e_value(**{"statistic": 1.5, "region": [[1.0, 2.0]], "scale": 2.0} | arguments)


@pytest.mark.parametrize("adjust", [holm, benjamini_yekutieli, benjamini_hochberg, e_benjamini_hochberg])
@pytest.mark.parametrize(
    "values", [np.ma.masked_less([0.1, 0.5], 0.3), ["a"], [[0.1], [0.1, 0.2]], [1j], {"a": 0.1}, None], ids=repr
)
def test_what_holds_no_p_values_is_named(adjust, values):
    # A mask that was ignored would turn what is missing into evidence.
    with pytest.raises(InvalidInputError, match="_values"):
        adjust(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statistic": "x"}, "statistic"),
        ({"region": "x"}, "region"),
        ({"scale": "x"}, "scale"),
        ({"null": None}, "null"),
        ({"null": ("chi", "x")}, "degrees of freedom"),
    ],
)
def test_wrong_truncations(change, message):
    with pytest.raises(InvalidInputError, match=message):
        truncated_e_value(**({"statistic": 1.0, "region": [[0.0, 5.0]], "scale": 2.0} | change))
