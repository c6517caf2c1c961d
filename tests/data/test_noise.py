"""Noise families: the distance from the normal distribution, and samples that follow what they claim."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from sigad.data.noise import FAMILIES, sample, shape_for_distance, standardised, wasserstein_to_normal
from sigad.errors import ConfigurationError, InvalidInputError

SHAPED = [family for family in FAMILIES if family != "normal"]
DISTANCES = [0.01, 0.04]


@pytest.mark.parametrize("family", SHAPED)
@pytest.mark.parametrize("distance", [*DISTANCES, 0.08])
def test_shape_gives_the_distance_by_an_independent_quadrature(family, distance):
    dist = standardised(family, shape_for_distance(family, distance))
    # The other form of the distance: the mean difference of quantiles, here by the midpoint rule in probability.
    u = (np.arange(200_000) + 0.5) / 200_000
    x = np.linspace(-12, 12, 1_201)
    quantiles = np.interp(u, dist.cdf(x), x)  # dist.ppf solves for each u, which takes minutes
    assert np.abs(quantiles - special.ndtri(u)).mean() == pytest.approx(distance, rel=0.005, abs=5e-5)


@pytest.mark.parametrize(
    ("dist", "expected"),
    [
        (stats.norm(), 0.0),
        (stats.norm(loc=0.5), 0.5),
        (stats.norm(scale=3), 2 * np.sqrt(2 / np.pi)),
        (
            stats.uniform(-np.sqrt(3), 2 * np.sqrt(3)),
            2 * integrate.quad(lambda u: abs((2 * u - 1) * np.sqrt(3) - special.ndtri(u)), 0.5, 1, limit=200)[0],
        ),
    ],
)
def test_wasserstein_against_known_values(dist, expected):
    assert wasserstein_to_normal(dist) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("family", SHAPED)
@pytest.mark.parametrize("distance", DISTANCES)
def test_samples_follow_the_standardised_distribution(family, distance):
    x = sample(np.random.default_rng(3), family, distance, 100_000)
    dist = standardised(family, shape_for_distance(family, distance))
    assert dist.mean() == pytest.approx(0, abs=1e-12) and dist.var() == pytest.approx(1, abs=1e-12)
    assert x.mean() == pytest.approx(0, abs=0.015) and x.var() == pytest.approx(1, abs=0.03)
    assert stats.kstest(x, dist.cdf).pvalue > 1e-3
    assert distance < 0.04 or stats.kstest(x, "norm").pvalue < 1e-3
    reference = special.ndtri((np.arange(x.size) + 0.5) / x.size)
    assert stats.wasserstein_distance(x, reference) == pytest.approx(distance, abs=0.01)


@pytest.mark.parametrize(("family", "moment"), [("skewnorm", 3), ("exponnorm", 3)])
def test_skewed_families_are_skewed_to_the_right(family, moment):
    assert (sample(np.random.default_rng(0), family, 0.04, 100_000) ** moment).mean() > 0.1


def test_steep_has_heavier_and_flat_lighter_tails_than_the_normal():
    kurtosis = {f: stats.kurtosis(sample(np.random.default_rng(0), f, 0.04, 100_000)) for f in SHAPED}
    assert kurtosis["gennorm_steep"] > 0.2 and kurtosis["t"] > 0.2 and kurtosis["gennorm_flat"] < -0.2


@pytest.mark.parametrize("family", FAMILIES)
def test_distance_zero_is_exactly_standard_normal(family):
    expected = np.random.default_rng(11).standard_normal((4, 5))
    np.testing.assert_array_equal(sample(np.random.default_rng(11), family, 0, (4, 5)), expected)
    np.testing.assert_array_equal(sample(np.random.default_rng(11), family, 0.0, (4, 5)), expected)


@pytest.mark.parametrize("family", SHAPED)
def test_same_stream_same_sample(family):
    first, again = (sample(np.random.default_rng(5), family, 0.02, (3, 7)) for _ in range(2))
    assert first.shape == (3, 7)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("family", SHAPED)
def test_a_distance_out_of_reach_says_what_can_be_reached(family):
    with pytest.raises(ConfigurationError, match=rf"'{family}'.*0\.7.*choose a distance between .* and 0\.[1-5]"):
        shape_for_distance(family, 0.7)


def test_errors_name_the_family_and_the_choices():
    with pytest.raises(ConfigurationError, match=r"'cauchy'.*skewnorm"):
        sample(np.random.default_rng(0), "cauchy", 0.0, 3)
    with pytest.raises(ConfigurationError, match=r"'normal'.*another family"):
        sample(np.random.default_rng(0), "normal", 0.01, 3)
    with pytest.raises(InvalidInputError, match="positive"):
        sample(np.random.default_rng(0), "t", -0.01, 3)
    with pytest.raises(InvalidInputError, match="positive"):
        shape_for_distance("t", float("nan"))
