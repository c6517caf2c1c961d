"""An estimated covariance: the null law of its statistic, its limits, and what a plug-in does instead."""

import numpy as np
import pytest
from scipy import stats

from sigad.errors import InvalidInputError
from sigad.knn import EstimatedCovariance, EstimatedScale, knn_test, knn_test_batch
from sigad.study.rates import uniformity


def problems(seed, trials, *, n, d, nu, k):
    """Test and training instances N(0, Sigma), and a scatter matrix W(Sigma, nu), for each of so many trials."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    scatter = np.stack([rows.T @ rows for rows in rng.normal(size=(trials, nu, d)) @ root])
    x_test, x_train = rng.normal(size=(trials, d)) @ root, rng.normal(size=(trials, n, d)) @ root
    return dict(
        x_test=x_test, x_train=x_train, k=k, covariance=EstimatedCovariance(scatter=scatter, degrees_of_freedom=nu)
    )


def level_of(given, quantile=0.5):
    """The second half of the trials, with a threshold that is a quantile of the scores of the first."""
    half = len(given["x_test"]) // 2
    first = given | {"x_test": given["x_test"][:half], "x_train": given["x_train"][:half], "covariance": 1.0}
    scores = [selection.score for selection in knn_test_batch(**first, threshold=np.inf).selection]
    rest = {name: given[name][half:] for name in ("x_test", "x_train", "covariance")}
    return given | rest | {"threshold": np.quantile(scores, quantile)}


@pytest.mark.parametrize("against", ["neighbour", "neighbourhood"])
def test_uniform_whatever_the_degrees_of_freedom(against):
    """1,500 p-values of true null hypotheses for nu from d + 1 on: uniform (error probability 1e-4 each), while those
    of the plug-in are not."""
    for d, nu in ((2, 3), (5, 8), (8, 20)):
        given = level_of(problems(d, 6000, n=20, d=d, nu=nu, k=[1, 2, 3]))
        p = knn_test_batch(**given, against=against).p_value
        p = p[~np.isnan(p)]
        assert len(p) > 1300 and uniformity(p).ks_p_value > 1e-4
        plugin = knn_test_batch(**(given | {"covariance": given["covariance"].matrix}), against=against).p_value
        assert np.nanmean(plugin <= 0.05) > 0.065 or nu >= 2 * d


def test_without_selection_it_is_hotelling():
    """All instances are neighbours and nothing is below the threshold: the p-value of Hotelling's F."""
    rng = np.random.default_rng(1)
    d, n, nu = 4, 7, 9
    x_test, x_train, rows = rng.normal(size=d) + 1, rng.normal(size=(n, d)), rng.normal(size=(nu + 1, d))
    estimate = EstimatedCovariance(rows)
    result = knn_test(x_test, x_train, k=n, threshold=-np.inf, covariance=estimate, against=n)
    e = x_test - x_train.mean(axis=0)
    f = e @ np.linalg.solve(estimate.scatter, e) / (1 + 1 / n) * (nu - d + 1) / d
    assert result.p_value == pytest.approx(stats.f.sf(f, d, nu - d + 1), rel=1e-10)
    assert result.statistic == pytest.approx(np.sqrt(e @ np.linalg.solve(estimate.matrix, e) / (1 + 1 / n)), rel=1e-12)
    scale = EstimatedScale(np.eye(d), rows)
    result = knn_test(x_test, x_train, k=n, threshold=-np.inf, covariance=scale, against=n)
    f = e @ e / (1 + 1 / n) / d / scale.variance
    assert result.p_value == pytest.approx(stats.f.sf(f, d, nu * d), rel=1e-10)


def test_many_degrees_of_freedom_are_a_known_covariance():
    given = problems(3, 40, n=30, d=4, nu=10, k=[1, 5]) | {"threshold": 0.0}
    sigma = np.cov(np.random.default_rng(2).normal(size=(50, 4)).T)
    nu = 10**9
    for against in ("neighbour", "neighbourhood"):
        known = knn_test_batch(**(given | {"covariance": sigma}), against=against)
        for estimate in (
            EstimatedCovariance(scatter=sigma * nu, degrees_of_freedom=nu),
            EstimatedScale(sigma, sum_of_squares=nu, degrees_of_freedom=nu),
        ):
            found = knn_test_batch(**(given | {"covariance": estimate}), against=against)
            np.testing.assert_allclose(found.statistic, known.statistic, rtol=1e-12)
            np.testing.assert_allclose(found.p_value, known.p_value, rtol=1e-6)


def test_units_and_batches_do_not_matter():
    """The p-value is the same after any linear change of units, and alone as in a batch."""
    given = problems(4, 30, n=20, d=3, nu=6, k=[1, 2, 4]) | {"threshold": -1.0}
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0] * 100.0
    turned = dict(
        x_test=given["x_test"] @ rotation.T,
        x_train=given["x_train"] @ rotation.T,
        covariance=EstimatedCovariance(
            scatter=rotation @ given["covariance"].scatter @ rotation.T, degrees_of_freedom=6
        ),
        threshold=-1.0 + np.log(100.0),
    )
    for against in ("neighbour", "neighbourhood", 2):
        together = knn_test_batch(**given, against=against)
        np.testing.assert_allclose(
            knn_test_batch(**(given | turned), against=against).p_value, together.p_value, rtol=1e-8
        )
        for i in range(0, 30, 7):
            alone = {name: given[name][i] for name in ("x_test", "x_train", "covariance")}
            alone["covariance"] = EstimatedCovariance(scatter=given["covariance"].scatter[i], degrees_of_freedom=6)
            assert knn_test(**(given | alone), against=against).p_value == pytest.approx(together.p_value[i], rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EstimatedCovariance(np.zeros((4, 4)) + np.arange(4)[:, None]), "3 degrees of freedom do not suffice"),
        (lambda: EstimatedCovariance(scatter=np.eye(3), degrees_of_freedom=2), "fewer components"),
        (lambda: EstimatedCovariance(scatter=np.eye(3)), "give either rows"),
        (lambda: EstimatedCovariance(np.ones((9, 2))), "positive definite"),
        (lambda: EstimatedCovariance(np.zeros(5)), "shape"),
        (lambda: EstimatedScale(1.0, sum_of_squares=0.0, degrees_of_freedom=3), "positive"),
        (lambda: EstimatedScale(1.0, sum_of_squares=2.0, degrees_of_freedom=0.5), "whole number"),
        (lambda: EstimatedScale(1.0, np.empty((0, 2))), "rows must have"),
        (lambda: EstimatedCovariance(np.empty((9, 0))), "rows must have"),
        (lambda: EstimatedCovariance(scatter=np.eye(2), degrees_of_freedom=np.nan), "degrees_of_freedom"),
        (lambda: EstimatedCovariance(scatter=np.eye(2), degrees_of_freedom=[5]), "degrees_of_freedom"),
        (
            lambda: knn_test(
                np.zeros(3), np.eye(3), k=1, threshold=0, covariance=EstimatedCovariance(np.eye(5)[:, :2])
            ),
            "the covariance has 2 columns",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


@pytest.mark.parametrize("estimate", [EstimatedCovariance(np.eye(4)[:, :2]), EstimatedScale(1.0, np.eye(4))])
def test_an_estimate_is_no_array(estimate):
    # numpy collects the items of whatever has a length and an index: here, without an end.
    with pytest.raises(TypeError):
        np.asarray(estimate)
