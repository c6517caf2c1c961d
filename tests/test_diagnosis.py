"""The diagnosis: verdicts on data whose truth is known."""

import functools

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import toeplitz

from sigad import diagnose, knn_test
from sigad.data.image_noise import KroneckerAutoregressive
from sigad.data.patch_noise import estimate
from sigad.errors import InvalidInputError
from sigad.inference.covariance import AutoregressiveCovariance
from sigad.inference.estimated import EstimatedCovariance

DENSE = toeplitz(0.6 ** np.arange(6.0))


def rows(seed, noise="normal", count=400):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 6)) @ np.linalg.cholesky(DENSE).T
    if noise == "mixture":
        x *= np.where(rng.random((count, 1)) < 0.1, 2.9, 0.4)
    return x + 7.0  # the mean does not matter


def neighbourhood(noise):
    return functools.partial(
        knn_test,
        x_train=rows(1, noise, 50),
        k=5,
        threshold=0.2 if noise == "normal" else -0.2,
        covariance=DENSE,
        against="neighbourhood",
    )


def test_a_true_model_is_not_contradicted():
    # p < 0.01 has that probability over seeds; this one is fixed.
    found = diagnose(rows(0), covariance=DENSE, test=neighbourhood("normal"))
    assert found.verdict in ("holds", "undecided") and found.model_p_value > 0.01
    assert found.variance_ratio == pytest.approx(1, abs=0.15) and found.dispersion == pytest.approx(1, abs=0.4)
    assert found.n_pairs == 200 and found.n_detected > 50
    low, high = stats.binomtest(found.n_rejected, found.n_detected).proportion_ci(0.95, "exact")
    assert (found.type1_low, found.type1_high) == (low, high)
    assert diagnose(rows(0), covariance=DENSE).verdict == "undecided"


def test_noise_that_is_not_normal_is_refused():
    found = diagnose(rows(0, "mixture"), covariance=DENSE, test=neighbourhood("mixture"))
    assert found.verdict == "refused" and found.type1_low > 0.05
    assert found.model_p_value == 0.001 and found.dispersion > 3 and found.excess_kurtosis > 1
    assert "Conformal" in found.words and str(found).startswith("refused")
    assert diagnose(rows(0, "mixture"), covariance=DENSE).verdict == "refused"


def test_the_p_value_of_the_model_is_uniform_under_it():
    # 300 seeds of 16 pairs; a KS p below 1e-3 has that probability. Power against a wider law is scipy's.
    p = [diagnose(rows(seed, count=32), covariance=DENSE).model_p_value for seed in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    wide = [diagnose(1.4 * rows(seed, count=32), covariance=DENSE).model_p_value for seed in range(20)]
    assert np.median(wide) < 0.01


def test_a_wrong_covariance_shows_by_its_factor():
    found = diagnose(rows(0), covariance=0.25 * DENSE)
    assert found.variance_ratio == pytest.approx(4, abs=0.6) and found.verdict == "refused"
    # The identity has the right trace, and the lengths too little spread without the correlations.
    assert diagnose(rows(0), covariance=1.0).dispersion > 1.3


def test_verdicts_of_a_test_are_those_of_its_interval():
    def with_rejections(count, detected=200, **options):
        p = iter([0.01] * count + [0.5] * (detected - count) + [np.nan] * (400 - detected))
        return diagnose(rows(0), covariance=DENSE, test=lambda _: next(p), **options)

    assert with_rejections(5).verdict == "holds"
    assert with_rejections(12).verdict == "undecided"
    assert with_rejections(12, refusal=0.2).verdict == "holds"
    assert with_rejections(40).verdict == "refused"
    nothing = with_rejections(0, detected=0)
    assert (
        nothing.verdict == "undecided" and np.isnan(nothing.type1) and (nothing.type1_low, nothing.type1_high) == (0, 1)
    )


def test_images_noise_models_table_and_picture():
    pytest.importorskip("matplotlib")
    images = rows(0).reshape(400, 1, 2, 3)
    model = estimate(rows(5), "shrunk")
    found = diagnose(images, covariance=model, test=lambda x: float(x.shape == (1, 2, 3)))
    assert found.model_p_value > 0.01 and found.n_detected == 400
    frame = found.to_frame()
    assert frame.loc[0, "verdict"] == found.verdict and "residuals" not in frame and len(frame) == 1
    assert len(found.plot().axes) == 2 and diagnose(images, covariance=model).plot() is not None


def test_only_what_is_within_the_mask_is_compared():
    # Outside of the mask, nothing varies (a background of zeros): the whole says that the model is far too wide.
    mask, images = np.array([[True, False, True], [False, True, True]]), rows(0).reshape(400, 1, 2, 3)
    images = np.where(mask, images, 0.0)
    inner = DENSE[np.ix_(mask.ravel(), mask.ravel())]
    expected = diagnose(images[:, 0][:, mask], covariance=inner)
    assert expected.verdict == "undecided" and diagnose(images, covariance=DENSE).verdict == "refused"
    model = KroneckerAutoregressive(np.linspace(1, 2, 6), (1, 2, 3), 0.3, 0.6, scale=1.5)
    matrix = np.stack([model @ column for column in np.eye(6)])
    for covariance, small in ((DENSE, inner), (2.0, 2.0), (np.arange(1.0, 7), np.array([1.0, 3, 5, 6])), (model, None)):
        small = matrix[np.ix_(mask.ravel(), mask.ravel())] if small is None else small
        found = diagnose(images, covariance=covariance, within=mask)
        expected = diagnose(images[:, 0][:, mask], covariance=small)
        np.testing.assert_allclose(found.residuals, expected.residuals, rtol=1e-9)
        assert found.residuals.shape == (200, 4)
    # Without a mask, the matrix of a covariance that is known by its products is that of all numbers.
    chain = AutoregressiveCovariance(variance=2.0, correlation=0.5)
    whole = diagnose(images, covariance=chain).residuals
    np.testing.assert_allclose(whole, diagnose(images, covariance=2 * toeplitz(0.5 ** np.arange(6.0))).residuals)
    # A mask that leaves nothing out is none; the test sees the whole image.
    everything = diagnose(
        images, covariance=model, within=np.ones((2, 3), bool), test=lambda x: float(x.shape == (1, 2, 3))
    )
    np.testing.assert_array_equal(everything.residuals, diagnose(images, covariance=model).residuals)
    assert everything.n_detected == 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normals": np.ones((5, 2))}, "at least 16"),
        ({"normals": np.empty((40, 0))}, "at least 16"),
        ({"normals": np.full((40, 2), np.nan)}, "finite"),
        ({"covariance": np.ones(3)}, "covariance"),
        ({"covariance": EstimatedCovariance(np.random.default_rng(0).normal(size=(9, 3)))}, "pass its matrix"),
        ({"normals": np.ones((16, 10_001)), "covariance": AutoregressiveCovariance()}, "smaller mask"),
        ({"within": np.ones(6)}, "boolean mask"),
        ({"within": np.ones((6, 6), bool)}, "boolean mask"),
        ({"within": np.zeros(6, bool)}, "something in it"),
        ({"within": np.arange(6) < 3, "covariance": np.ones(5)}, "covariance must be"),
        ({"within": np.arange(6) < 3, "covariance": estimate(rows(5), "shrunk")}, "pass its matrix"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": "0.05"}, "alpha"),
        ({"refusal": 0.01}, "refusal"),
        ({"test": "knn"}, "function of an instance"),
        ({"test": lambda x: x.nothing}, "AttributeError"),
        ({"test": lambda _: 2.0}, "one p_value"),
        ({"test": lambda _: None}, "one p_value"),
        ({"test": lambda _: np.ones(3)}, "one p_value"),
    ],
)
def test_wrong_input(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        diagnose(**{"normals": rows(0), "covariance": DENSE} | changes)
