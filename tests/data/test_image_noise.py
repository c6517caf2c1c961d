"""Covariances of whole images against dense matrices, and their choice."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sigad.data.image_noise import KINDS, choose, contrasts, estimate, held_out, standardised
from sigad.errors import InvalidInputError
from sigad.localization.contrast import contrast

SHAPE = (2, 4, 5)
N = 40


def correlated(rng, m, rows=0.7, columns=0.4, shape=(1, 8, 8)):
    """Images whose correlations are powers of the distance in rows and columns, with unequal variances."""
    white = rng.standard_normal((m, *shape))
    factors = [
        np.linalg.cholesky(r ** np.abs(np.subtract.outer(*2 * [np.arange(n)])))
        for r, n in zip((rows, columns), shape[1:], strict=True)
    ]
    return (factors[0] @ white @ factors[1].T) * np.linspace(0.5, 2, shape[2])


def by_inverse(deviations, matrix):
    """Inner products of whitened deviations, by the inverse of the matrix."""
    rows = deviations.reshape(len(deviations), -1)
    return rows @ np.linalg.solve(matrix, rows.T)


def alone(images):
    return [f"p{i}" for i in range(len(images))]


@pytest.mark.parametrize("kind", KINDS)
def test_products_and_likelihood_are_those_of_the_matrix(kind):
    rng = np.random.default_rng(0)
    images = correlated(rng, 30, shape=SHAPE) + 3
    images[:, 0, 0, :2] = 0  # never varies
    covariance = estimate(images, alone(images), kind, components=3)
    matrix = np.stack([covariance @ unit for unit in np.eye(N)])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix)[0] > 0
    deviations = rng.standard_normal((5, *SHAPE))
    expected = multivariate_normal(np.zeros(N), matrix).logpdf(deviations.reshape(5, -1)) / N
    np.testing.assert_allclose(covariance.log_likelihood(deviations), expected, rtol=1e-9)
    drawn = np.stack([covariance.color(unit) for unit in np.eye(N)])  # transposed root
    np.testing.assert_allclose(drawn.T @ drawn, matrix, atol=1e-10)
    white = covariance.whiten(deviations)
    np.testing.assert_allclose(white @ white.T, by_inverse(deviations, matrix), rtol=1e-9, atol=1e-9)
    regions = rng.random((3, *SHAPE[1:])) < 0.5
    statistic = standardised(covariance, deviations, contrasts(regions, SHAPE))
    for i, region in enumerate(regions):
        line = contrast(region, deviations[0], np.zeros(SHAPE), matrix)
        assert statistic[0, i] == pytest.approx(line.statistic * np.sqrt(2))


def test_variances_count_patients_not_images():
    rng = np.random.default_rng(1)
    patients = rng.standard_normal((200, 6, 1, 4, 4))
    for few in (4, 10):
        # Every image four times: as if slices of a patient were equal.
        found = [
            np.mean(estimate(np.repeat(p[:few], 4, 0), np.repeat(alone(p[:few]), 4), "diagonal").sd ** 2)
            for p in patients
        ]
        assert np.mean(found) == pytest.approx(1, abs=0.05)
    found = estimate(np.repeat(patients[0], 4, 0), np.repeat(alone(patients[0]), 4), "isotropic")
    assert np.ptp(found.sd) == 0


def test_likelihood_chooses_the_model_that_generated_the_images():
    rng = np.random.default_rng(2)
    regions = np.zeros((3, 8, 8), bool)
    regions[0, :4], regions[1, 2:6, 2:6], regions[2, :, 5:] = True, True, True
    covariance, tried = choose(correlated(rng, 60), alone(range(60)), regions, seed=0)
    assert max(tried, key=lambda kind: tried[kind].log_likelihood) == "autoregressive" and set(tried) == set(KINDS)
    assert covariance.rows == pytest.approx(0.7, abs=0.06) and covariance.columns == pytest.approx(0.4, abs=0.06)
    # Where correlations are left out, the statistic of a region spreads; where the model is right, it does not.
    assert tried["diagonal"].spread > 1.5 and 0.85 < tried["autoregressive"].spread < 1.2
    assert 1 <= covariance.scale == max(1, tried["autoregressive"].spread)
    far = correlated(rng, 4000)
    statistic = standardised(covariance, far, contrasts(regions, (1, 8, 8)))
    assert 0.8 < np.sqrt(np.square(statistic).mean()) < 1.15
    # Directions without structure in space are found by the other models.
    low = rng.standard_normal((60, 2)) @ rng.choice([-1.0, 1.0], (2, 64)) + 0.5 * rng.standard_normal((60, 64))
    _, tried = choose(low.reshape(60, 1, 8, 8), alone(low), regions, seed=0, components=2)
    assert max(tried, key=lambda kind: tried[kind].log_likelihood) in ("shrunk", "components")


def test_patients_are_never_in_both_parts():
    """Held-out images are judged by a model that has not seen their patient: an own direction of it stays unseen."""
    rng = np.random.default_rng(3)
    own = 5 * np.repeat(rng.standard_normal((10, 64)), 6, 0)
    images = (own + rng.standard_normal((60, 64))).reshape(60, 1, 8, 8)
    by_patient = held_out(images, np.repeat(alone(range(10)), 6), "components", np.ones((1, 8, 8), bool), seed=0)
    by_image = held_out(images, alone(images), "components", np.ones((1, 8, 8), bool), seed=0)
    assert by_patient.log_likelihood < by_image.log_likelihood - 1


def test_mistakes():
    images = np.random.default_rng(0).standard_normal((6, 1, 4, 4))
    with pytest.raises(InvalidInputError, match="isotropic, diagonal"):
        estimate(images, alone(images), "full")
    with pytest.raises(InvalidInputError, match="at least three groups"):
        estimate(images, ["a", "a", "a", "b", "b", "b"], "diagonal")
    with pytest.raises(InvalidInputError, match="do not vary"):
        estimate(np.ones_like(images), alone(images), "diagonal")
    with pytest.raises(InvalidInputError, match="components"):
        estimate(images, alone(images), "components", components=-1)
    with pytest.raises(InvalidInputError, match="kinds"):
        choose(images, alone(images), np.ones((1, 4, 4), bool), seed=0, kinds=[])
    with pytest.raises(InvalidInputError, match="folds"):
        held_out(images, alone(images), "diagonal", np.ones((1, 4, 4), bool), seed=0, folds=1)
    with pytest.raises(InvalidInputError, match="none empty"):
        held_out(images, alone(images), "diagonal", np.zeros((1, 4, 4), bool), seed=0)
