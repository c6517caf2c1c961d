"""Verdicts on a test from its p-values of normal instances."""

import numpy as np
import pytest
from scipy import stats

from sigad import judge
from sigad.errors import InvalidInputError
from sigad.knn import NormalModel


def p_values(rejected, detected, given=400):
    return np.array([0.01] * rejected + [0.5] * (detected - rejected) + [np.nan] * (given - detected))


@pytest.mark.parametrize(
    ("rejected", "options", "verdict"),
    [(5, {}, "holds"), (12, {}, "undecided"), (12, {"refusal": 0.2}, "holds"), (40, {}, "refused")],
)
def test_the_verdict_is_that_of_the_exact_interval(rejected, options, verdict):
    found = judge(p_values(rejected, 200), **options)
    low, high = stats.binomtest(rejected, 200).proportion_ci(0.95, "exact")
    assert (found.n_normals, found.n_detected, found.n_rejected) == (400, 200, rejected)
    assert (found.type1, found.type1_low, found.type1_high) == (rejected / 200, low, high)
    assert found.verdict == verdict and str(found).startswith(f"{verdict}. Of 200 detected normals")
    assert ("Conformal" in found.words) == (verdict == "refused")


def test_nothing_detected():
    found = judge([np.nan, np.nan])
    assert np.isnan(found.type1) and (found.type1_low, found.type1_high, found.verdict) == (0, 1, "undecided")


def test_of_each_group_one_detected_instance_is_counted():
    # 50 images of 1 to 9 patches; all of an image are rejected or none, a tenth of the images.
    sizes = np.arange(50) % 9 + 1
    images = np.repeat([f"image {i}" for i in range(50)], sizes)
    p = np.where(np.repeat(np.arange(50) % 10 == 0, sizes), 0.01, 0.7)
    p[np.repeat(np.arange(50) == 3, sizes)] = np.nan
    found = judge(p, groups=images)
    assert (found.n_normals, found.n_detected, found.n_rejected) == (len(p), 49, 5)
    assert judge(p, groups=np.array(images, object)) is not found and judge(p).n_detected == (~np.isnan(p)).sum()
    # Groups count alike, whichever of their instances is drawn: here half of each is rejected.
    p = np.tile([0.01, 0.7], 2000)
    found = judge(p, groups=np.repeat(np.arange(1000), 4))
    assert found.n_detected == 1000 and abs(found.n_rejected - 500) < 80


def test_verdicts_on_a_model_of_normal_rows():
    """At 5 %: normal rows hold, those of which a tenth varies seven times as much are refused. The seed is fixed."""
    settings = {"k": 5, "transform": None, "components": 2, "quantile": 0.7}
    rng = np.random.default_rng(0)
    holds = judge(NormalModel.out_of_fold(rng.normal(size=(1200, 3)), **settings))
    assert holds.verdict == "holds" and 300 < holds.n_detected < 500
    wide = np.where(rng.random((1200, 1)) < 0.1, 2.9, 0.4)
    refused = judge(NormalModel.out_of_fold(wide * rng.normal(size=(1200, 3)), **settings))
    assert refused.verdict == "refused" and refused.n_normals == 1200


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"p_values": [0.5, 1.2]}, "lie in"),
        ({"p_values": [[0.5]]}, "shape"),
        ({"p_values": None}, "None"),
        ({"groups": [1.5, 2.5]}, "whole numbers or text"),
        ({"groups": [1]}, "each of the 2"),
        ({"alpha": 0}, "alpha"),
        ({"refusal": 0.01}, "refusal"),
    ],
)
def test_wrong_input(given, message):
    with pytest.raises(InvalidInputError, match=message):
        judge(**{"p_values": [0.5, np.nan]} | given)
