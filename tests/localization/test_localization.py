"""The localization test against direct selection, and what it refuses.

The counts here are for a quick run with a narrow network. With SIGAD_FULL=1 in the environment the regions of 50 trials
at 8x8 and 10 at 16x16 are compared on grids of 20,000 points (about an hour on one core).
"""

import os

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz
from torch import nn

from sigad.errors import InvalidInputError, NumericalError, UnsupportedOperationError
from sigad.inference import region as rg
from sigad.inference.exact import Search
from sigad.inference.truncated import mean_confidence_interval, truncated_pvalue
from sigad.line import piecewise
from sigad.localization import AutoregressiveCovariance, Detector, contrast, localization_test
from sigad.localization.hypothesis import MaskHypothesis
from sigad.localization.permutation import permutation_pvalue
from sigad.study.rates import uniformity
from tests.localization.small_detectors import autoencoder, check_region, diffusion, small_unet

FULL = os.environ.get("SIGAD_FULL") == "1"
TRIALS = {8: 50, 16: 10} if FULL else {8: 2, 16: 1}
POINTS = 20_000 if FULL else 1_000
THRESHOLD = 0.8
THRESHOLDS = {1: 0.7, 3: 1.2}


def images(seed, size=8, channels=1):
    return np.random.default_rng([seed, 0]).standard_normal((2, channels, size, size))


def selected(size, count):
    """The first seeds with a region that is not empty."""
    found, seed = [], 0
    while len(found) < count:
        detector = Detector(diffusion(seed, size), threshold=THRESHOLD)
        if detector.detect(images(seed, size)[0]).mask.any():
            found.append(seed)
        seed += 1
    return found


@pytest.mark.parametrize(("size", "number"), [(size, i) for size, count in TRIALS.items() for i in range(count)])
def test_region_of_a_diffusion_model_is_that_of_direct_selection(size, number):
    seed = selected(size, number + 1)[number]
    reconstruct, (x, x_ref) = diffusion(seed, size), images(seed, size)
    result = localization_test(reconstruct, x, x_ref, covariance=1.0, threshold=THRESHOLD, exhaustive=FULL)
    observed, detector = result.selection.mask, Detector(reconstruct, threshold=THRESHOLD)
    hypothesis = MaskHypothesis(detector, x, observed, contrast(observed, x, x_ref, 1.0))
    check_region(hypothesis, result.region, result.searched, POINTS)
    assert rg.contains(result.region, result.statistic)


@pytest.mark.parametrize("channels", [1, 3])
def test_region_of_an_autoencoder_is_that_of_direct_selection(channels):
    mask = np.zeros((8, 8), bool)
    mask[1:7, 2:] = True
    reconstruct, dense = autoencoder(channels), toeplitz(0.5 ** np.arange(64.0 * channels))
    for seed in range(3):
        x, x_ref = images(seed, channels=channels)
        arguments = {"threshold": THRESHOLDS[channels], "covariance": dense, "within": mask, "exhaustive": True}
        result = localization_test(reconstruct, x, x_ref, **arguments)
        observed = result.selection.mask
        assert observed.any() and not observed[~mask].any()
        detector = Detector(reconstruct, threshold=THRESHOLDS[channels], within=mask)
        hypothesis = MaskHypothesis(detector, x, observed, contrast(observed, x, x_ref, dense))
        check_region(hypothesis, result.region, result.searched, 4_000)
        structured = localization_test(
            reconstruct, x, x_ref, **arguments | {"covariance": AutoregressiveCovariance(0.5)}
        )
        assert structured.p_value == pytest.approx(result.p_value, rel=1e-8)


def test_contrast():
    rng = np.random.default_rng(0)
    x, x_ref = rng.normal(size=(2, 3, 4, 4))
    region = rng.random((4, 4)) > 0.6
    factor = rng.normal(size=(48, 60))
    covariance = factor @ factor.T / 60
    line = contrast(region, x, x_ref, covariance)
    assert line.effect == pytest.approx(x[:, region].mean() - x_ref[:, region].mean(), rel=1e-12)
    eta = np.broadcast_to(region, x.shape).ravel() / (3 * region.sum())
    eta, both = np.concatenate([eta, -eta]), np.kron(np.eye(2), covariance)
    assert line.standard_error == pytest.approx(np.sqrt(eta @ both @ eta), rel=1e-12)
    direction = both @ eta / line.standard_error
    np.testing.assert_allclose(line.direction.ravel(), direction[:48], rtol=1e-12)
    # Both images move, in opposite directions; the statistic is the position on the line.
    shift = (2.5 - line.statistic) * line.direction
    assert contrast(region, x + shift, x_ref - shift, covariance).statistic == pytest.approx(2.5, rel=1e-12)


def test_order_of_operations_does_not_matter():
    seed = selected(8, 3)[-1]
    reconstruct, (x, x_ref) = diffusion(seed), images(seed)

    def test(**options):
        return localization_test(reconstruct, x, x_ref, covariance=1.0, threshold=THRESHOLD, exhaustive=True, **options)

    results = [test(), test(dtype=torch.float64), test(memory_budget=4_000_000)]
    for other in results[1:]:
        assert other.p_value == pytest.approx(results[0].p_value, abs=1e-6, rel=1e-6)
        np.testing.assert_allclose(other.region, results[0].region, rtol=0, atol=1e-8)
    # A search that stops early brackets it, and looks at less.
    early = localization_test(reconstruct, x, x_ref, covariance=1.0, threshold=THRESHOLD, tolerance=0.05)
    assert early.p_low - 1e-12 <= results[0].p_value <= early.p_high + 1e-12 <= early.p_low + 0.05 + 1e-9
    assert early.n_evaluations < results[0].n_evaluations
    low, high = results[0].confidence_interval
    assert early.confidence_interval[0] <= low + 1e-9 and high - 1e-9 <= early.confidence_interval[1]


def test_linear_piece_lies_in_the_region():
    for seed in selected(8, 4):
        reconstruct, (x, x_ref) = diffusion(seed), images(seed)
        result = localization_test(reconstruct, x, x_ref, covariance=1.0, threshold=THRESHOLD, tolerance=0.1)
        line = contrast(result.selection.mask, x, x_ref, 1.0)
        detector = Detector(reconstruct, threshold=THRESHOLD)
        interval = MaskHypothesis(detector, x, result.selection.mask, line).piece_region()
        ours = rg.component(result.region, line.statistic)[0]
        assert ours[0] - 1e-9 <= interval[0, 0] < line.statistic < interval[0, 1] <= ours[1] + 1e-9
        # It is a linear piece: the scores at its ends determine those within.
        z = np.array([interval[0, 0], interval[0].mean(), interval[0, 1]])
        scores = detector.scores(x + (z - line.statistic)[:, None, None, None] * line.direction)
        np.testing.assert_allclose(scores[1], (scores[0] + scores[2]) / 2, rtol=0, atol=1e-10)


def test_smooth_network_made_piecewise_linear():
    smooth = small_unet(activation="silu")
    seed, (x, x_ref) = 1, images(1)
    with pytest.raises(UnsupportedOperationError, match="silu"):
        localization_test(diffusion(seed, unet=smooth), x, x_ref, covariance=1.0, threshold=0.1)
    reconstruct = diffusion(seed, unet=piecewise(smooth))
    result = localization_test(reconstruct, x, x_ref, covariance=1.0, threshold=0.5, tolerance=0.05)
    assert result.status == "tested" and result.p_low <= result.p_value <= result.p_high


def test_confidence_interval_takes_the_unknown_at_its_worst():
    region, statistic = np.array([[-1.5, 0.2], [0.5, 1.9]]), 0.9
    low, high = Search(statistic, region, (-2.0, 2.0), *[np.nan] * 5).confidence_interval()
    for right in ([], [[2.5, 3.0]], [[2.0, np.inf]]):
        for left in ([], [[-4.0, -2.5]], [[-np.inf, -2.0]]):
            exact = mean_confidence_interval(
                statistic, np.concatenate([region, *(np.array([p]) for p in right + left)])
            )
            assert low - 1e-9 <= exact[0] and exact[1] <= high + 1e-9


def test_effect_and_its_interval():
    x, x_ref = images(3)
    x = x + 1.5
    for covariance in (1.0, 4.0):
        result = localization_test(
            autoencoder(), x, x_ref, threshold=0.7, covariance=covariance, alternative="equal-tailed", exhaustive=True
        )
        region = result.selection.mask
        assert result.effect == pytest.approx(x[0][region].mean() - x_ref[0][region].mean(), rel=1e-12)
        low, high = result.confidence_interval
        assert low < high
        # The interval inverts the equal-tailed test.
        assert (result.p_value <= 0.05) == (not low < 0 < high)
        assert result.selection.scores.shape == (8, 8) and result.n_evaluations > 1


def test_nothing_marked_is_not_tested():
    result = localization_test(autoencoder(), *images(0), covariance=1.0, threshold=100.0)
    assert result.status == "not_selected" and np.isnan(result.p_value) and np.isnan(result.effect)
    assert not result.selection.mask.any() and result.region.shape == (0, 2)


def test_p_values_of_true_nulls_are_uniform():
    # 200 null trials, most of them tested; a KS p below 1e-4 has that probability. A thousand trials of trained
    # diffusion models are in results/reference.
    p_values, naive = [], []
    for seed in range(200):
        result = localization_test(
            autoencoder(seed=1), *images(seed, size=6), covariance=1.0, threshold=0.6, tolerance=1e-3
        )
        if result.status == "tested":
            p_values.append(result.p_value)
            naive.append(float(truncated_pvalue(result.statistic, rg.WHOLE_LINE)))
    assert len(p_values) > 120
    assert uniformity(p_values).ks_p_value > 1e-4
    assert uniformity(naive).ks_p_value < 0.02


def test_permutation_test():
    detector, rng = Detector(autoencoder(), threshold=0.6), np.random.default_rng(0)
    statistic = lambda mask, a, b: contrast(mask, a, b, 1.0).statistic  # noqa: E731
    x, x_ref = images(1)
    shifted = [
        permutation_pvalue(detector.masks, x + shift, x_ref, statistic, T, rng, permutations=150)
        for shift in (0.0, 1.0)
        for T in [contrast(detector.detect(x + shift).mask, x + shift, x_ref, 1.0).statistic]
    ]
    assert shifted[1] < 0.02 < shifted[0] <= 1
    with pytest.raises(NumericalError, match="permutations"):
        permutation_pvalue(lambda a: np.zeros((len(a), 8, 8), bool), x, x_ref, statistic, 1.0, rng, permutations=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.full((1, 8, 8), np.nan)}, "NaN"),
        ({"x": np.zeros((8, 8))}, r"\(C, H, W\)"),
        ({"x_ref": np.zeros((1, 6, 8))}, "must be the same"),
        ({"threshold": np.nan}, "threshold"),
        ({"covariance": np.eye(3)}, "covariance"),
        ({"covariance": -1.0}, "positive"),
        ({"filter_size": 2}, "odd"),
        ({"within": np.ones((4, 4), bool)}, "within"),
        ({"within": np.ones((8, 8))}, "boolean"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"reconstruct": torch.relu}, "Module"),
        ({"reconstruct": autoencoder().train()}, "eval"),
        ({"reconstruct": nn.Sequential(nn.Conv2d(1, 1, 3)).eval()}, "same shape"),
    ],
)
def test_wrong_input(changes, message):
    arguments = {
        "reconstruct": autoencoder(),
        "x": images(0)[0],
        "x_ref": images(0)[1],
        "threshold": 0.5,
        "covariance": 1.0,
    } | changes
    with pytest.raises(InvalidInputError, match=message):
        localization_test(**arguments)


@pytest.mark.parametrize("threshold", [0.1, 100.0])
def test_an_unsupported_operation_is_named_whether_or_not_something_is_marked(threshold):
    with pytest.raises(UnsupportedOperationError, match="sigmoid"):
        localization_test(
            nn.Sequential(autoencoder(), nn.Sigmoid()).eval(), *images(0), covariance=1.0, threshold=threshold
        )


def test_tensors_and_single_precision_modules():
    x, x_ref = images(2)
    double = localization_test(autoencoder(), x, x_ref, covariance=1.0, threshold=0.7)
    single = localization_test(
        autoencoder().float(), torch.tensor(x), torch.tensor(x_ref), covariance=1.0, threshold=0.7
    )
    assert single.p_value == pytest.approx(double.p_value, rel=1e-6)


class InPlace(nn.Module):
    """Begins with an operation in place, on the image that it is given."""

    def __init__(self, begin):
        super().__init__()
        self.begin, self.rest = begin, autoencoder()
        self.eval()

    def forward(self, x):
        return self.rest(self.begin(x))


@pytest.mark.parametrize(
    ("in_place", "out_of_place"),
    [
        (nn.ReLU(inplace=True), nn.ReLU()),
        (lambda x: x.clamp_(-0.3, 0.5), lambda x: x.clamp(-0.3, 0.5)),
        (lambda x: x.mul_(0.5), lambda x: x * 0.5),
    ],
)
def test_a_first_layer_in_place_changes_neither_the_image_nor_the_result(in_place, out_of_place):
    x, x_ref = images(2)
    kept = x.copy()
    expected = localization_test(InPlace(out_of_place), x, x_ref, covariance=1.0, threshold=0.7)
    assert expected.status == "tested"
    for given in (x, torch.from_numpy(x)):
        found = localization_test(InPlace(in_place), given, x_ref, covariance=1.0, threshold=0.7)
        np.testing.assert_array_equal(found.selection.scores, expected.selection.scores)
        assert found.p_value == pytest.approx(expected.p_value, rel=1e-9)
        np.testing.assert_array_equal(x, kept)
