"""Noise models: their matrix, whitening, sampling, and the shrinkage against scikit-learn."""

import numpy as np
import pytest

from sigad.data.patch_noise import NOISE_KINDS, estimate
from sigad.errors import InvalidInputError
from sigad.knn import statistic


def instances(seed=0, m=40, d=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, d)) @ rng.normal(size=(d, d)) + 5


@pytest.mark.parametrize("kind", NOISE_KINDS)
@pytest.mark.parametrize("m", [5, 40])
def test_whitening_statistic_and_samples_follow_from_the_matrix(kind, m):
    noise, rng = estimate(instances(m=m), kind), np.random.default_rng(1)
    matrix = noise.covariance()
    difference = rng.normal(size=(7, 6))
    np.testing.assert_allclose(noise.statistic(difference), statistic(difference, matrix), rtol=1e-9)
    np.testing.assert_allclose(
        np.square(noise.whiten(difference)).sum(-1),
        np.einsum("bi,ij,bj->b", difference, np.linalg.inv(matrix), difference),
        rtol=1e-9,
    )
    sample = noise.sample(rng, 200_000)
    np.testing.assert_allclose(sample.mean(0), noise.mean, atol=0.05 * np.sqrt(np.diag(matrix)).max())
    np.testing.assert_allclose(np.cov(sample.T), matrix, atol=0.03 * np.diag(matrix).max())


def test_shrinkage_is_that_of_scikit_learn():
    from sklearn.covariance import ledoit_wolf

    for m, d in ((50, 4), (20, 60)):
        x = instances(2, m, d)
        standardised = (x - x.mean(0)) / x.std(0, ddof=1)
        _, expected = ledoit_wolf(standardised, assume_centered=True)
        assert estimate(x, "shrunk").rest == pytest.approx(expected, rel=1e-6)


def test_kinds_differ_as_they_should():
    x = instances()
    assert np.ptp(np.diag(estimate(x, "isotropic").covariance())) < 1e-12
    np.testing.assert_allclose(estimate(x, "diagonal").covariance(), np.diag(x.var(0, ddof=1)), atol=1e-12)
    assert np.abs(np.triu(estimate(x, "shrunk").covariance(), 1)).max() > 0.1


def test_errors():
    x = instances()
    x[:, 2] = 1.0
    with pytest.raises(InvalidInputError, match="1 of 6 dimensions do not vary"):
        estimate(x, "diagonal")
    assert estimate(x, "isotropic").rest == 1.0
    with pytest.raises(InvalidInputError, match="isotropic, diagonal, shrunk"):
        estimate(x, "full")
    with pytest.raises(InvalidInputError, match="at least three"):
        estimate(x[:2], "diagonal")
