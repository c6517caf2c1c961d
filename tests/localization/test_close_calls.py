"""Scores next to the threshold: double precision decides, and what it cannot decide has no p-value."""

import numpy as np
import pytest
import torch
from torch import nn

from sigad.errors import NumericalError
from sigad.localization import localization_test
from sigad.localization.detector import Detector
from tests.localization.small_detectors import autoencoder


def setting(seed):
    x, x_ref = np.random.default_rng((seed, 3)).normal(size=(2, 1, 8, 8))
    scores = np.sort(Detector(autoencoder(), threshold=0.0).detect(x).scores.ravel())
    return x, x_ref, scores[-6]


@pytest.mark.parametrize("gap", [1e-7, -1e-7, 1e-9, -1e-9, 1e-11, -1e-11])
@pytest.mark.parametrize("seed", range(2))
def test_a_score_next_to_the_threshold_is_decided_in_double_precision(gap, seed):
    x, x_ref, score = setting(seed)
    how = dict(threshold=score - gap, covariance=1.0)
    single, double = (
        localization_test(autoencoder(), x, x_ref, dtype=dtype, **how) for dtype in (torch.float32, torch.float64)
    )
    assert single.selection.mask.sum() == (6 if gap > 0 else 5)
    assert single.p_low <= double.p_high and double.p_low <= single.p_high and 0 < single.p_value < 1
    inside = [max(single.searched[0], double.searched[0]), min(single.searched[1], double.searched[1])]
    ends = [r[(r > inside[0]) & (r < inside[1])] for r in (single.region, double.region)]
    np.testing.assert_allclose(*ends, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(2))
def test_a_score_at_the_threshold_has_no_p_value(seed):
    x, x_ref, score = setting(seed)
    for threshold in (score, np.nextafter(score, 0), np.nextafter(score, 9)):
        with pytest.raises(NumericalError):
            localization_test(autoencoder(), x, x_ref, threshold=threshold, covariance=1.0)


class Saturated(nn.Module):
    """Black where it is dark: the score there is the threshold wherever the image is moved."""

    def forward(self, x):
        return x + nn.functional.hardtanh(2 * x, -0.3, 0.3)


def test_a_saturated_score_at_the_threshold_has_no_p_value():
    rng = np.random.default_rng(0)
    x, x_ref = 5 + rng.normal(size=(2, 1, 6, 6))
    x[0, 0, 0] = 0.1
    with pytest.raises(NumericalError, match="equals the threshold"):
        localization_test(Saturated().eval(), x, x_ref, threshold=0.2, filter_size=1, covariance=1e-3)
