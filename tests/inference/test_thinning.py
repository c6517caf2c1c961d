"""Gaussian thinning: two independent versions with the stated covariances."""

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.sparse.linalg import aslinearoperator

from sigad.errors import InvalidInputError
from sigad.inference.covariance import AutoregressiveCovariance, noise
from sigad.inference.thinning import thin

DENSE = toeplitz(0.5 ** np.arange(6.0))
COVARIANCES = {
    "variance": (2.0, 2.0 * np.eye(6)),
    "variances": (np.arange(1.0, 7), np.diag(np.arange(1.0, 7))),
    "matrix": (DENSE, DENSE),
}


@pytest.mark.parametrize("form", COVARIANCES)
@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_covariances_of_both_versions(form, tau):
    covariance, dense = COVARIANCES[form]
    rng = np.random.default_rng(0)
    x = noise(covariance, (200_000, 2, 3), rng)
    halves = thin(x, covariance, tau=tau, rng=rng)
    both = np.concatenate([halves.detection.reshape(-1, 6), halves.test.reshape(-1, 6)], axis=1)
    expected = np.kron(np.diag([halves.detection_variance, halves.test_variance]), dense)
    assert (halves.detection_variance, halves.test_variance) == (1 + tau**2, 1 + tau**-2)
    # The standard error of an entry is at most sqrt(2/N) times the product of the standard deviations: 0.003.
    sd = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(np.cov(both.T) / np.outer(sd, sd), expected / np.outer(sd, sd), rtol=0, atol=0.015)
    np.testing.assert_allclose((halves.detection + tau**2 * halves.test) / (1 + tau**2), x, rtol=0, atol=1e-12)


def test_autoregressive_noise_of_one_image():
    rng = np.random.default_rng(0)
    images = np.stack([noise(AutoregressiveCovariance(0.5), (1, 2, 3), rng) for _ in range(20_000)]).reshape(-1, 6)
    np.testing.assert_allclose(np.cov(images.T), DENSE, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("x", "covariance", "tau"),
    [
        (np.ones(6), 1.0, 0.0),
        (np.ones(6), 1.0, np.inf),
        (np.full(6, np.nan), 1.0, 1.0),
        (np.ones(6), np.ones(5), 1.0),
        (np.ones(6), -np.eye(6), 1.0),
        (np.ones(6), aslinearoperator(DENSE), 1.0),
        (np.ones(6), np.ones((1, 6, 6)), 1.0),
    ],
)
def test_wrong_input(x, covariance, tau):
    with pytest.raises(InvalidInputError):
        thin(x, covariance, tau=tau, rng=np.random.default_rng(0))
