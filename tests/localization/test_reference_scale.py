"""The scale of the noise from the references: Student's t-test of one image against several, given the selection."""

import numpy as np
import pytest
import torch
from scipy import stats

from sigad.errors import InvalidInputError
from sigad.inference.lattice import Lattice
from sigad.localization import Detector, EstimatedScale, ReferenceScale, contrast, localization_test
from sigad.localization.permutation import permutation_pvalue
from sigad.localization.thinning import thinned_localization_test
from sigad.study.rates import uniformity
from tests.localization.small_detectors import autoencoder

SHAPE = np.linspace(0.2, 3.0, 36)  # variances, which are right but for a factor


def everything():
    """A detector that marks every pixel wherever on the line, so that nothing is truncated."""
    detector = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)).double().eval()
    with torch.no_grad():
        detector[0].weight.fill_(1.0), detector[0].bias.fill_(5.0)
    return detector


def test_without_selection_it_is_students_t_test():
    rng = np.random.default_rng(0)
    x, x_ref = rng.normal(size=(1, 6, 6)), rng.normal(0.3, 2.0, (5, 1, 6, 6))
    given = dict(threshold=0.1, filter_size=1, tolerance=1e-6)
    result = localization_test(everything(), x, x_ref, covariance=ReferenceScale(1.0), **given)
    student = stats.ttest_ind([x.mean()], x_ref.mean((1, 2, 3)))
    assert result.statistic == pytest.approx(student.statistic, rel=1e-10)
    assert result.p_value == pytest.approx(student.pvalue, abs=1e-6)
    again = localization_test(everything(), x, x_ref, covariance=ReferenceScale(7.0), **given)
    assert again.statistic == pytest.approx(result.statistic, rel=1e-12)


def test_it_is_the_estimated_scale_of_each_region():
    rng = np.random.default_rng(1)
    x, x_ref = rng.normal(size=(2, 6, 6)), rng.normal(size=(4, 2, 6, 6))
    shape = np.concatenate([SHAPE, 2 * SHAPE])
    for mask in rng.random((3, 6, 6)) < 0.3:
        weights = np.broadcast_to(mask, x.shape).ravel() / (2 * mask.sum())
        squares = np.square(x_ref.reshape(4, -1) @ weights - x_ref.mean(0).ravel() @ weights).sum()
        scale = EstimatedScale(shape, sum_of_squares=squares / (weights**2 @ shape), degrees_of_freedom=3)
        one, two = (contrast(mask, x, x_ref, c) for c in (ReferenceScale(shape), scale))
        assert one.statistic == pytest.approx(two.statistic, rel=1e-12) and one.null == pytest.approx(two.null)
        np.testing.assert_allclose(one.direction, two.direction, rtol=1e-12)


def null_trial(seed, engine="exact"):
    rng = np.random.default_rng([seed, 7])
    x, *x_ref = 1.7 * np.sqrt(SHAPE).reshape(6, 6) * rng.standard_normal((4, 1, 6, 6))
    covariance = ReferenceScale(SHAPE)
    return localization_test(
        autoencoder(seed=1), x, x_ref, covariance=covariance, threshold=1.4, resolution=2, engine=engine, tolerance=1e-3
    )


def test_p_values_of_true_nulls_are_uniform():
    # 300 null trials with 2 degrees of freedom and a scale 1.7 times that of the shape; KS p < 1e-4 has that
    # probability. Without the beta law, or without the truncation, the p-values are far from uniform.
    results = [result for seed in range(300) if (result := null_trial(seed)).status == "tested"]
    assert len(results) > 150
    assert uniformity([result.p_value for result in results]).ks_p_value > 1e-4
    t = np.array([result.statistic for result in results])
    assert uniformity(2 * stats.norm.sf(np.abs(t))).ks_p_value < 1e-4
    assert uniformity(2 * stats.t.sf(np.abs(t), 2)).ks_p_value < 1e-2


def test_both_engines_agree():
    for seed in range(6):
        exact, fine = (null_trial(seed, engine) for engine in ("exact", Lattice(spacing=0.005)))
        assert exact.status == fine.status
        if exact.status == "tested":
            assert fine.p_value == pytest.approx(exact.p_value, abs=0.03)


def test_what_tells_no_scale_is_refused_before_anything_is_selected():
    x, x_ref = np.zeros((1, 8, 8)), np.random.default_rng(0).normal(size=(3, 1, 8, 8))
    given = dict(threshold=100.0, covariance=ReferenceScale(1.0))
    for references, message in ((x_ref[0], "two or more"), (x_ref[:1], "two or more"), (0 * x_ref, "do not differ")):
        with pytest.raises(InvalidInputError, match=message):
            localization_test(autoencoder(), x, references, **given)
    with pytest.raises(InvalidInputError, match="positive"):
        localization_test(autoencoder(), x, x_ref, threshold=100.0, covariance=ReferenceScale(-1.0))
    with pytest.raises(InvalidInputError):
        thinned_localization_test(autoencoder(), x, x_ref, tau=1.0, rng=np.random.default_rng(0), **given)


def test_permutations_of_several_references():
    detector, rng = Detector(autoencoder(), threshold=0.6), np.random.default_rng(0)
    x, *x_ref = rng.normal(size=(4, 1, 8, 8))
    statistic = lambda mask, a, b: contrast(mask, a, b, 1.0).statistic  # noqa: E731
    pvalue = lambda shift, references: permutation_pvalue(  # noqa: E731
        detector.masks,
        x + shift,
        references,
        statistic,
        contrast(detector.detect(x + shift).mask, x + shift, references, 1.0).statistic,
        np.random.default_rng(3),
        permutations=100,
    )
    references = np.array(x_ref)
    assert pvalue(2.0, references) < 0.05 < pvalue(0.0, references) <= 1
    assert pvalue(0.5, references[:1]) == pvalue(0.5, references[0])
