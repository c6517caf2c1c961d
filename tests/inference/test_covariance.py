"""Covariances without a matrix."""

import tracemalloc

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.sparse.linalg import aslinearoperator

from sigad.errors import InvalidInputError
from sigad.inference.covariance import AutoregressiveCovariance, check_matrix, multiplication


@pytest.mark.parametrize(("correlation", "variance"), [(0.5, 1.0), (-0.3, 2.0), (0.0, 0.5)])
def test_autoregressive_against_its_matrix(correlation, variance):
    structured = AutoregressiveCovariance(correlation, variance)
    dense = variance * toeplitz(correlation ** np.arange(30.0))
    vector = np.random.default_rng(0).normal(size=30)
    np.testing.assert_allclose(structured @ vector, dense @ vector, rtol=1e-12, atol=1e-12)
    for form in (structured, dense, aslinearoperator(dense)):
        np.testing.assert_allclose(multiplication(form, len(vector))(vector), dense @ vector, rtol=1e-12, atol=1e-12)
    # Coloring the unit vectors gives the transposed factor of the covariance.
    factor = structured.color(np.eye(30))
    np.testing.assert_allclose(factor.T @ factor, dense, rtol=1e-12, atol=1e-12)


def test_variances():
    vector = np.arange(4.0)
    np.testing.assert_array_equal(multiplication(2.0, len(vector))(vector), 2 * vector)
    np.testing.assert_array_equal(multiplication([1, 2, 3, 4], len(vector))(vector), [0, 2, 6, 12])


def test_no_matrix_is_made():
    structured, vector = AutoregressiveCovariance(), np.ones(4096)
    structured @ vector  # imports
    tracemalloc.start()
    structured @ vector
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096 * 8 * 20  # an n x n matrix has 4096 * 8 * 4096 bytes


@pytest.mark.parametrize(
    "covariance", [0.0, -1.0, np.nan, np.ones(3), np.zeros(4), np.ones((4, 3)), np.triu(np.ones((4, 4))), np.inf]
)
def test_what_is_no_covariance(covariance):
    with pytest.raises(InvalidInputError):
        multiplication(covariance, 4)(np.ones(4))


@pytest.mark.parametrize("wrong", [[[1.0, 5.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]], [[np.nan, 0.0], [0.0, 1.0]]])
def test_a_frame_is_checked_as_a_matrix_is(wrong):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InvalidInputError):
        multiplication(pandas.DataFrame(wrong), 2)
    right = pandas.DataFrame([[2.0, 1.0], [1.0, 2.0]])
    np.testing.assert_array_equal(multiplication(right, 2)(np.ones(2)), [3.0, 3.0])


@pytest.mark.parametrize("wrong", [AutoregressiveCovariance, aslinearoperator(np.eye(3))])
def test_an_operator_that_fails(wrong):
    with pytest.raises(InvalidInputError):
        multiplication(wrong, 4)


def test_a_matrix_must_be_positive_definite_and_may_be_asymmetric_by_rounding():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(6, 8))
    covariance = factor @ factor.T
    for _ in range(20):
        noisy = covariance * (1 + 1e-15 * rng.normal(size=covariance.shape))
        symmetric, cholesky = check_matrix(noisy)
        np.testing.assert_array_equal(symmetric, symmetric.T)
        np.testing.assert_allclose(cholesky @ cholesky.T, covariance, rtol=1e-10, atol=1e-12)
    values, vectors = np.linalg.eigh(covariance)
    with pytest.raises(InvalidInputError, match="positive definite"):
        check_matrix((vectors * np.append(-1e-3, values[1:])) @ vectors.T)
    with pytest.raises(InvalidInputError, match="symmetric"):
        check_matrix(covariance + 1e-6 * np.triu(np.ones((6, 6)), 1))


@pytest.mark.parametrize("arguments", [(1.0,), (0.5, 0.0), (0.5, np.nan)])
def test_what_is_no_autoregression(arguments):
    with pytest.raises(InvalidInputError):
        AutoregressiveCovariance(*arguments)
