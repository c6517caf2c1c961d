"""The kNN test by thinning: exact for any features, metric and neighbourhood."""

import numpy as np
import pytest
from scipy.linalg import toeplitz

from sigad.errors import InvalidInputError, NumericalError
from sigad.knn.thinning import thinned_knn_test
from sigad.study.rates import uniformity

DENSE = 0.8 * toeplitz(0.5 ** np.arange(6.0))


@pytest.mark.parametrize(
    "options",
    [
        {"k": 4},
        {"k": range(1, 6), "against": "neighbourhood", "metric": "l1"},
        {"k": 3, "features": lambda x: np.tanh(x.reshape(len(x), -1) * 2)},
    ],
    ids=["neighbour", "neighbourhood", "smooth features"],
)
def test_p_values_of_true_nulls_are_uniform(options):
    # 1,500 null trials, half of them detected or more; a KS p below 1e-3 has that probability.
    rng, p = np.random.default_rng(0), []
    for _ in range(1500):
        x = (rng.standard_normal((21, 6)) @ np.linalg.cholesky(DENSE).T).reshape(21, 2, 3)
        if "features" not in options:
            x = x.reshape(21, 6)
        result = thinned_knn_test(x[0], x[1:], threshold=0.3, covariance=DENSE, tau=0.8, rng=rng, **options)
        if result.status == "tested":
            p.append(result.p_value)
    assert len(p) > 200 and uniformity(p).ks_p_value > 1e-3


def test_an_anomaly_is_found_and_the_draw_decides_all():
    rng = np.random.default_rng(0)
    x, x_train = rng.normal(size=5) + 4, rng.normal(size=(30, 5))
    arguments = {"k": 5, "covariance": 1.0, "tau": 1.0, "against": "neighbourhood"}
    first, again = (
        thinned_knn_test(x, x_train, threshold=0.5, rng=np.random.default_rng(1), **arguments) for _ in range(2)
    )
    assert first.p_value == again.p_value < 0.01 and first.p_low == first.p_high == first.p_value
    assert len(first.selection.indices) == 5
    nothing = thinned_knn_test(x, x_train, threshold=100.0, rng=rng, **arguments)
    assert nothing.status == "not_selected" and np.isnan(nothing.p_value)
    for changes in ({"x_train": x_train[:, :4]}, {"tau": 0.0}, {"features": lambda v: v[:3]}, {"covariance": -1.0}):
        with pytest.raises(InvalidInputError):
            thinned_knn_test(**{"x_test": x, "x_train": x_train, "threshold": 0.5, "rng": rng} | arguments | changes)


@pytest.mark.parametrize("against", ["neighbour", "neighbourhood"])
def test_copies_of_what_is_compared_have_no_p_value(against):
    # The detector sees each copy with a noise of its own, and so learns about the half that is tested.
    rng = np.random.default_rng(0)
    x, x_train = rng.normal(size=5) + 4, rng.normal(size=(30, 5))

    def test(x_train):
        how = {"k": 5, "covariance": 1.0, "tau": 0.01, "against": against, "threshold": -9.0}
        return thinned_knn_test(x, x_train, rng=np.random.default_rng(1), **how)

    found = test(x_train).selection
    chosen = found.indices[2] if against == "neighbourhood" else found.index
    far = np.linalg.norm(x - x_train, axis=1).argmax()
    for copied in (x, x_train[chosen]):
        spoilt = x_train.copy()
        spoilt[far if copied is not x else chosen] = copied
        with pytest.raises(NumericalError, match="copy"):
            test(spoilt)
    # Copies of what is not compared with harm nothing.
    others = np.argsort(np.linalg.norm(x - x_train, axis=1))[-2:]
    x_train[others[0]] = x_train[others[1]]
    assert test(x_train).status == "tested"
