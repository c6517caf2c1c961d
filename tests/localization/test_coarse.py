"""Coarser questions: regions against the detector along the line, for both engines, and what is tested."""

import numpy as np
import pytest
import torch
from scipy import stats

from sigad.errors import InvalidInputError
from sigad.inference.exact import exact
from sigad.inference.lattice import lattice
from sigad.localization import (
    Blocks,
    BoundingBox,
    Detector,
    EstimatedScale,
    MaskHypothesis,
    Parts,
    contrast,
    localization_test,
)
from sigad.localization.coarse import Pixels
from tests.localization.small_detectors import autoencoder, check_region

ATLAS = np.arange(64).reshape(8, 8) // 3 % 5  # parts that are not connected
MAPS = {
    "pixels": Pixels(),
    "blocks 2": Blocks(2),
    "blocks 3": Blocks(3),
    "blocks 8": Blocks(8),
    "atlas": Parts(ATLAS),
    "box": BoundingBox(),
}


def hypothesis_of(coarse, seed, within=None):
    rng = np.random.default_rng(seed)
    x, x_ref = rng.normal(size=(2, 1, 8, 8))
    network = autoencoder(1, seed)
    scores = Detector(network, threshold=0).detect(x).scores
    threshold = np.quantile(scores if within is None else scores[within], 0.85)
    detector = Detector(network, threshold=threshold, within=within)
    found = detector.detect(x)
    tested = coarse.tested(found.mask[None])[0]
    line = contrast(tested if within is None else tested & within, x, x_ref, 1.0)
    return MaskHypothesis(detector, x, found.mask, line, coarse=coarse)


@pytest.mark.parametrize("name", MAPS)
def test_region_equals_brute_force(name):
    """Of four detectors, with and without a restriction to some pixels."""
    coarse, intervals = MAPS[name], 0
    for seed in range(4):
        within = None if seed % 2 else np.add.outer(np.arange(8), np.arange(8)) > 4
        hypothesis = hypothesis_of(coarse, seed, within)
        found = exact(hypothesis, exhaustive=True, window=(hypothesis.statistic - 3, hypothesis.statistic + 3))
        check_region(hypothesis, found.region, found.searched, 301)
        intervals += len(found.region)
    assert intervals >= 4


@pytest.mark.parametrize("name", ["blocks 2", "atlas", "box"])
def test_the_lattice_engine_takes_them_too(name):
    """Every lattice point in Z lies in the region of the exact engine, and every other one outside."""
    hypothesis = hypothesis_of(MAPS[name], 5)
    on_lattice = lattice(hypothesis, spacing=0.02)
    region = exact(hypothesis, exhaustive=True).region
    inside = on_lattice.region[:, 0]
    assert len(inside) > 5
    assert ((region[:, 0] <= inside[:, None]) & (inside[:, None] <= region[:, 1])).any(axis=1).all()
    low, high = (np.array(on_lattice.searched) - hypothesis.statistic) / 0.02
    points = hypothesis.statistic + 0.02 * np.arange(np.rint(low), np.rint(high) + 1)
    outside = points[np.abs(points[:, None] - inside).min(axis=1) > 1e-9]
    assert not ((region[:, 0] <= outside[:, None]) & (outside[:, None] <= region[:, 1])).any()


def test_what_is_tested():
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 1, 2] = masks[0, 4, 5] = True
    masks[1, 2, 2:4] = True
    blocks = Blocks(2).tested(masks)
    assert blocks[0, :2, 2:4].all() and blocks[0, 4:, 4:6].all() and blocks[0].sum() == 6  # half a block is left below
    assert blocks[1, 2:4, 2:4].all() and blocks[1].sum() == 4
    box = BoundingBox().tested(masks)
    assert box[0, 1:5, 2:6].all() and box[0].sum() == 16 and box[1].sum() == 2
    labels = np.repeat([[1, 1, 2, 2, 3, 3, 9]], 5, axis=0)
    assert (Parts(labels).tested(masks)[0] == np.isin(labels, [2, 3])).all()
    for coarse in (*MAPS.values(),):
        if not isinstance(coarse, Parts):
            assert not coarse.tested(masks)[2].any()
            assert (coarse.tested(masks) >= masks).all()


def test_the_call():
    """The test of blocks tests blocks; of one pixel it is the paper's; and parts are blocks if they are the same."""
    rng = np.random.default_rng(3)
    x, x_ref = rng.normal(size=(2, 1, 8, 8))
    given = dict(threshold=0.8, covariance=1.0, tolerance=1e-4)
    paper = localization_test(autoencoder(1, 1), x, x_ref, **given)
    assert (paper.tested == paper.selection.mask).all()
    blocks = localization_test(autoencoder(1, 1), x, x_ref, resolution=4, **given)
    assert (blocks.tested == Blocks(4).tested(paper.selection.mask[None])[0]).all() and blocks.tested.sum() >= 16
    assert blocks.effect == pytest.approx((x - x_ref)[0][blocks.tested].mean())
    labels = np.add.outer(np.arange(8) // 4 * 2, np.arange(8) // 4)
    assert localization_test(autoencoder(1, 1), x, x_ref, resolution=labels, **given).p_value == blocks.p_value
    assert [len(axes.images) for axes in blocks.plot().axes] == [2, 2]


def test_several_references_have_less_variance():
    rng = np.random.default_rng(4)
    x, x_ref = rng.normal(size=(1, 8, 8)), rng.normal(size=(9, 1, 8, 8))
    given = dict(threshold=0.8, covariance=0.5, tolerance=1e-4)
    many = localization_test(autoencoder(1, 1), x, x_ref, **given)
    one = localization_test(autoencoder(1, 1), x, x_ref.mean(axis=0), **given)
    assert many.effect == pytest.approx(one.effect, rel=1e-12)
    assert many.statistic == pytest.approx(one.statistic * np.sqrt(2 / (1 + 1 / 9)), rel=1e-12)


def test_an_estimated_scale_is_students_t_without_selection():
    """A threshold that every pixel exceeds wherever on the line, so that nothing is truncated."""
    rng = np.random.default_rng(5)
    x, x_ref = rng.normal(size=(2, 1, 8, 8))
    df, squares = 7, 9.0
    detector = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)).double().eval()
    with torch.no_grad():
        detector[0].weight.fill_(1.0), detector[0].bias.fill_(5.0)
    scale = EstimatedScale(1.0, sum_of_squares=squares, degrees_of_freedom=df)
    result = localization_test(detector, x, x_ref, threshold=0.1, filter_size=1, covariance=scale)
    t = (x - x_ref).mean() / np.sqrt(2 * squares / df / 64)
    assert result.statistic == pytest.approx(t, rel=1e-12) and result.selection.mask.all()
    assert result.p_low <= 2 * stats.t.sf(abs(t), df) * (1 + 1e-9) and result.p_value == pytest.approx(
        2 * stats.t.sf(abs(t), df), rel=0.01
    )
    assert result.confidence_interval == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resolution": 0}, "resolution must be a whole number"),
        ({"resolution": 2.5}, "resolution must be a whole number"),
        ({"resolution": np.zeros((3, 3), int)}, "the parts have the shape"),
        ({"resolution": np.zeros((8, 8))}, "whole numbers"),
        ({"x_ref": np.zeros((2, 1, 4, 8))}, "must be the same"),
        ({"x_ref": np.zeros((8, 8))}, "or \\(R, C, H, W\\)"),
        ({"covariance": EstimatedScale(1.0, sum_of_squares=[1.0, 2.0], degrees_of_freedom=3)}, "one image has one"),
    ],
)
def test_errors(given, message):
    x = np.zeros((1, 8, 8))
    with pytest.raises(InvalidInputError, match=message):
        localization_test(autoencoder(1, 1), x, **({"x_ref": x, "threshold": 0.8, "covariance": 1.0} | given))
