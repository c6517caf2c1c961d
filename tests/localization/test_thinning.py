"""The localization test by thinning: exact for any module, smooth ones too, with signal outside of the mask or none."""

import numpy as np
import pytest
from scipy.linalg import toeplitz
from torch import nn

from sigad.errors import InvalidInputError, NumericalError
from sigad.localization import localization_test
from sigad.localization.thinning import thinned_localization_test
from sigad.study.rates import uniformity
from tests.localization.small_detectors import autoencoder

DENSE = 0.7 * toeplitz(0.6 ** np.arange(36.0))


@pytest.mark.parametrize("covariance", [1.0, DENSE], ids=["variance", "matrix"])
def test_p_values_of_true_nulls_are_uniform(covariance):
    # 400 null trials of a detector that no line search can take; a KS p below 1e-3 has that probability.
    rng = np.random.default_rng(1)
    smooth = nn.Sequential(autoencoder(seed=1), nn.Sigmoid()).double().eval()
    factor = np.linalg.cholesky(covariance * np.eye(36) if np.ndim(covariance) == 0 else covariance)
    p = []
    for _ in range(400):
        x, x_ref = (rng.standard_normal((2, 36)) @ factor.T).reshape(2, 1, 6, 6)
        result = thinned_localization_test(smooth, x, x_ref, threshold=0.9, covariance=covariance, tau=0.7, rng=rng)
        if result.status == "tested":
            p.append(result.p_value)
    assert len(p) > 250 and uniformity(p).ks_p_value > 1e-3


def test_effect_interval_and_detection():
    rng = np.random.default_rng(0)
    x, x_ref = rng.standard_normal((2, 1, 8, 8))
    x[0, :3, :3] += 5
    arguments = {"threshold": 1.4, "covariance": 1.0, "tau": 0.5}
    result = thinned_localization_test(autoencoder(), x, x_ref, rng=np.random.default_rng(3), **arguments)
    again = thinned_localization_test(autoencoder(), x, x_ref, rng=np.random.default_rng(3), **arguments)
    assert result.p_value == again.p_value < 0.01 and result.p_low == result.p_high == result.p_value
    low, high = result.confidence_interval
    assert low < result.effect < high
    size = result.selection.mask.sum()
    # A normal interval: the mean over the mask has the variance (1 + 1/tau^2 + 1) / size.
    assert high - low == pytest.approx(2 * 1.959964 * np.sqrt(6 / size), rel=1e-6)
    nothing = thinned_localization_test(autoencoder(), x, x_ref, rng=rng, **arguments | {"threshold": 100.0})
    assert nothing.status == "not_selected" and np.isnan(nothing.p_value)
    with pytest.raises(InvalidInputError, match="tau"):
        thinned_localization_test(autoencoder(), x, x_ref, rng=rng, **arguments | {"tau": -1.0})


def test_several_references_and_coverage():
    # 300 images with a signal, five references: the 90 % interval misses the true effect in 30 of them on average, and
    # in more than 52 with a probability below 1e-4.
    rng, missed, tested = np.random.default_rng(4), 0, 0
    signal = np.zeros((1, 6, 6))
    signal[0, :3, :3] = 1.0
    for _ in range(300):
        x, x_ref = signal + rng.standard_normal((1, 6, 6)), rng.standard_normal((5, 1, 6, 6))
        result = thinned_localization_test(
            autoencoder(seed=1), x, x_ref, threshold=0.6, covariance=1.0, tau=1.0, rng=rng, level=0.9
        )
        if result.status == "tested":
            tested += 1
            low, high = result.confidence_interval
            missed += not low <= signal[0, result.selection.mask].mean() <= high
            variance = 1 + 1 + 1 / 5
            assert high - low == pytest.approx(
                2 * 1.6448536 * np.sqrt(variance / result.selection.mask.sum()), rel=1e-6
            )
    assert tested > 250 and 10 < missed < 52


@pytest.mark.parametrize("thinned", [False, True])
def test_copies_among_the_references_have_no_p_value(thinned):
    # The mean of copies has a larger variance than that of independent references: p would be too small.
    rng = np.random.default_rng(0)
    x, references = rng.standard_normal((1, 6, 6)), rng.standard_normal((4, 1, 6, 6))
    how = {"threshold": 0.6, "covariance": 1.0} | ({"tau": 1.0, "rng": rng} if thinned else {})
    test = thinned_localization_test if thinned else localization_test
    for spoilt in (references[[0, 1, 2, 1]], references[[0]].repeat(4, axis=0), np.stack([references[0], x]), x):
        with pytest.raises(NumericalError, match="copy"):
            test(autoencoder(), x, spoilt, **how)
