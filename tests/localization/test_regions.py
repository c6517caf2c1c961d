"""Tests of all regions of a mask: each against direct selection, their joint validity, their table and picture."""

import numpy as np
import pytest

from sigad.inference.lattice import Lattice
from sigad.inference.multiple import benjamini_yekutieli, holm
from sigad.localization import Detector, contrast, localization_test
from sigad.localization.hypothesis import MaskHypothesis
from sigad.localization.regions import connected
from sigad.study.rates import uniformity
from tests.localization.small_detectors import autoencoder, check_region


def images(seed, size=8):
    return np.random.default_rng([seed, 0]).standard_normal((2, 1, size, size))


def test_connected_components_share_edges():
    mask = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [1, 0, 1, 0]], bool)
    parts = connected(mask)
    assert len(parts) == 4 and sorted(part.sum() for part in parts) == [1, 1, 2, 2]
    np.testing.assert_array_equal(np.sum(parts, axis=0), mask)
    assert connected(np.zeros((2, 3), bool)) == []


def test_each_region_is_tested_given_the_whole_mask():
    reconstruct, (x, x_ref) = autoencoder(), images(2)
    arguments = {"threshold": 0.7, "covariance": 1.0, "exhaustive": True}
    result = localization_test(reconstruct, x, x_ref, per_region=True, **arguments)
    whole = localization_test(reconstruct, x, x_ref, **arguments)
    assert result.status == "tested" and len(result) > 1
    np.testing.assert_array_equal(result.labels > 0, whole.selection.mask)
    detector = Detector(reconstruct, threshold=0.7)
    for rank, region in enumerate(result.regions, 1):
        mask = region.selection.mask
        np.testing.assert_array_equal(result.labels == rank, mask)
        line = contrast(mask, x, x_ref, 1.0)
        assert (region.statistic, region.effect) == (line.statistic, line.effect)
        # Conditioned on all that was marked, not on this component alone.
        check_region(MaskHypothesis(detector, x, whole.selection.mask, line), region.region, region.searched, 2_000)
    p = np.array([region.p_high for region in result.regions])
    assert (np.diff(p) >= 0).all()
    np.testing.assert_array_equal(result.holm, holm(p))
    np.testing.assert_array_equal(result.by, benjamini_yekutieli(p))


def test_one_region_is_the_test_of_the_mask():
    reconstruct, (x, x_ref) = autoencoder(), images(3)
    x[0, :3, :3] += 4
    arguments = {"threshold": 1.4, "covariance": 1.0}
    result = localization_test(reconstruct, x, x_ref, per_region=True, **arguments)
    whole = localization_test(reconstruct, x, x_ref, **arguments)
    assert len(result) == 1
    assert (result.regions[0].p_value, result.holm[0]) == (whole.p_value, whole.p_high)
    assert result.regions[0].confidence_interval == whole.confidence_interval


def test_joint_validity_over_normal_images():
    # 150 normal images, one to five regions each. Holm's false rejections at 0.2 are at most Binomial(150, 0.2): 45 or
    # more have probability 3e-3; a p-value per image is uniform (KS p < 1e-3 has that probability). 2,500 images are in
    # results/reference/regions_8x8.csv.
    any_rejected, firsts, regions = 0, [], 0
    for seed in range(150):
        result = localization_test(
            autoencoder(seed=1), *images(seed, 6), threshold=0.5, covariance=1.0, tolerance=1e-2, per_region=True
        )
        if not len(result):
            continue
        regions += len(result)
        any_rejected += result.holm[0] <= 0.2
        firsts.append(min(result.regions, key=lambda r: np.flatnonzero(r.selection.mask)[0]).p_value)
    assert regions > 1.3 * len(firsts) and len(firsts) > 120
    assert any_rejected < 45
    assert uniformity(firsts).ks_p_value > 1e-3


def test_table_and_picture():
    pytest.importorskip("matplotlib")
    x, x_ref = images(6)
    result = localization_test(autoencoder(), x, x_ref, threshold=0.6, covariance=1.0, tolerance=0.1, per_region=True)
    frame = result.to_frame()
    assert list(frame["region"]) == list(range(1, len(result) + 1))
    assert frame["pixels"].sum() == result.selection.mask.sum()
    np.testing.assert_array_equal(frame["holm"], result.holm)
    picture, effects = result.plot().axes[:2]
    assert len(picture.texts) == len(result) and tuple(effects.get_yticks()) == tuple(frame["region"])
    assert f"{len(result)} regions" in repr(result)
    nothing = localization_test(autoencoder(), x, x_ref, threshold=100.0, covariance=1.0, per_region=True)
    assert nothing.status == "not_selected" and len(nothing) == 0 and nothing.to_frame().empty
    assert not nothing.labels.any() and nothing.plot() is not None and "not_selected" in repr(nothing)


def test_regions_on_the_lattice_and_of_blocks():
    # Each block or lattice test is that of the same hypothesis alone: the whole mask is conditioned on.
    x, x_ref = images(2)
    arguments = {"threshold": 0.6, "covariance": 1.0, "tolerance": 0.0}
    exact = localization_test(autoencoder(), x, x_ref, per_region=True, **arguments)
    lattice = localization_test(autoencoder(), x, x_ref, per_region=True, engine=Lattice(spacing=0.02), **arguments)
    assert len(exact) == len(lattice) > 1
    by_pixels = {region.selection.mask.tobytes(): region for region in exact.regions}
    for region in lattice.regions:
        same = by_pixels[region.selection.mask.tobytes()]
        assert (region.statistic, region.effect) == (same.statistic, same.effect)
        # Within two cells of the lattice's mass of the exact p-value.
        assert region.p_value == pytest.approx(same.p_value, abs=0.1)
    blocks = localization_test(autoencoder(), x, x_ref, per_region=True, resolution=4, **arguments)
    tested = np.sum([region.tested for region in blocks.regions], axis=0)
    expected = exact.selection.mask.reshape(2, 4, 2, 4).any((1, 3)).repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(tested, expected)
