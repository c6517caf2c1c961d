"""Trials on image patches: every baseline that serves them, thresholds, maps, examples, noise, features."""

import numpy as np
import pytest
import torch

from sigad.data.images import split, texture_patches
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError
from sigad.inference.multiple import benjamini_yekutieli
from sigad.knn import knn_test
from sigad.knn.detection import scores
from sigad.models.architectures import small_cnn
from sigad.models.features import ImageFeatures, Truncated
from sigad.seeds import trial_streams
from sigad.study import image_views, methods
from sigad.study.kinds import knn_images
from sigad.study.kinds.knn_images import KnnImages
from sigad.study.rates import uniformity
from sigad.study.run import run_trials

SETTING = {
    "dataset": "gravel",
    "instance": "gaussian",
    "n": 30,
    "k": "1-5",
    "quantile": 0.7,
    "metric": "l2",
    "covariance": "shrunk",
    "features": "small_cnn",
}
METHODS = [name for name in methods.names() if methods.load(name).needs <= KnnImages.offers]


@pytest.fixture(scope="module")
def images():
    return texture_patches("gravel", 16)


@pytest.fixture(scope="module")
def features():
    torch.manual_seed(0)
    network = Truncated(small_cnn(), "12")
    return ImageFeatures(network, mean=(128.0,), std=(64.0,)).eval()


def run(method, images, features, repetitions=range(12), **changes):
    streams = trial_streams(3, "conformance", "images", repetitions)
    method, few = methods.load(method), {"normals": 8}
    method = method(**{name: few[name] for name in method.keys() if name in few})
    return run_trials(KnnImages(**{**SETTING, **changes}), method, streams, images=images, features=features)


@pytest.mark.parametrize("method", METHODS)
def test_every_baseline_sees_the_same_trials_and_none_is_lost(method, images, features):
    rows, reference = run(method, images, features), run("naive", images, features)
    tested = rows["status"] == "tested"
    assert 0 < tested.sum() and len(rows["status"]) == 12 and not rows["reason"].any()
    if methods.load(method).needs_selection:
        assert tested.sum() < 12
        own = "neighbourhoods" in methods.load(method).needs  # a hypothesis, and so a statistic, of its own
        for name in ("status", "null_true", *([] if own else ["statistic"])):
            np.testing.assert_array_equal(rows[name], reference[name])
    assert (rows["p_low"][tested] <= rows["p_value"][tested]).all()
    assert (rows["p_value"][tested] <= rows["p_high"][tested]).all()
    parts = [run(method, images, features, range(start, start + 6)) for start in (0, 6)]
    joined = np.concatenate([part["p_value"] for part in parts])
    np.testing.assert_array_equal(joined, rows["p_value"])


@pytest.mark.parametrize("method", ["proposed", "neighbourhood"])
def test_selective_methods_are_valid_where_the_noise_model_holds(method, images, features):
    """About 36 detected patches; KS p below 1e-4 has that probability."""
    rows = run(method, images, features, range(120))
    p = rows["p_value"][rows["status"] == "tested"]
    assert len(p) > 20 and uniformity(p).ks_p_value > 1e-4


@pytest.mark.parametrize(("method", "against"), [("proposed", "neighbour"), ("neighbourhood", "neighbourhood")])
def test_selective_methods_are_those_of_the_library(method, against, images, features):
    streams = trial_streams(3, "conformance", "images", range(12))
    rows, tested = run(method, images, features), 0
    blocks = KnnImages(**SETTING).draw(streams, images=images, features=features)
    for i, (_, problems) in enumerate(blocks):
        found = problems.detections
        result = knn_test(
            found.x_test[0].reshape(1, 16, 16),
            found.x_train[0].reshape(-1, 1, 16, 16),
            k=range(1, 6),
            threshold=float(problems.threshold[0]),
            covariance=problems.noises[0].covariance(),
            features=problems.features,
            against=against,
        )
        np.testing.assert_allclose(rows["p_value"][i], np.nan if result.p_value is None else result.p_value, rtol=1e-4)
        tested += result.p_value is not None
    assert tested >= 2


def test_normals_that_calibrate_are_of_other_images_at_the_same_position(images):
    parts, trial = [], None
    for instance in ("normal", "anomaly"):
        rng = np.random.default_rng(3)
        trial = knn_images.draw_trial(images, rng, n=30, instance=instance, covariance="shrunk")
        further = trial.further(np.random.default_rng(0), 1000)
        parts = [trial.x_test[None], trial.x_train, trial.estimation, further]
        flat = np.concatenate(parts).reshape(-1, trial.x_test.size)
        assert len(np.unique(flat, axis=0)) == len(flat) and len(trial.further(rng, 5)) == 5
        # All of the testing half but the patch under test.
        assert len(further) == len(split(images, np.random.default_rng(3), 30).testing) - (instance == "normal")


def test_conformal_needs_normals_that_are_left(images, features, monkeypatch):
    monkeypatch.setattr(knn_images, "BLOCK", (2, 6))
    with pytest.raises(ConfigurationError, match="normal, anomaly or gaussian"):
        run("conformal", images, features, range(1), instance="image", quantile=0.5)


def test_screening_in_single_precision_changes_nothing(images, features, monkeypatch):
    reference = run("naive", images, features)
    monkeypatch.setattr(knn_images, "_MARGIN", np.inf)
    np.testing.assert_array_equal(run("naive", images, features)["p_value"], reference["p_value"])


def test_pilots_are_no_images_of_the_set(images, features):
    setting, streams = KnnImages(**{**SETTING, "instance": "normal"}), trial_streams(3, "e", "here", range(4))
    pilots = [problems for _, problems in setting.pilots(streams, images=images, features=features)]
    assert [len(problems) for problems in pilots] == [1] * 4 and {problems.shape for problems in pilots} == {
        (1, 16, 16)
    }
    known = {image.astype(float).tobytes() for image in images.images}
    for problems in pilots:
        found = [problems.detections.x_test[0], *problems.detections.x_train[0]]
        assert not known & {x.tobytes() for x in found} and len(np.unique(found, axis=0)) == len(found)


def test_the_threshold_leaves_each_instance_out():
    rng = np.random.default_rng(0)
    f = rng.normal(size=(20, 3))
    expected = []
    for i in range(20):
        distance = np.abs(np.delete(f, i, axis=0) - f[i]).sum(-1)
        expected.append(scores(distance, (1, 3), 3).max())
    found = knn_images.normal_scores(f, (1, 3), n=19, metric="l1")
    np.testing.assert_array_equal(found, knn_images.normal_scores(f, (1, 3), n=100, metric="l1"))
    assert (found <= knn_images.normal_scores(f, (1, 3), n=5, metric="l1")).all()
    np.testing.assert_allclose(found, expected)
    with pytest.raises(InvalidInputError, match="too few"):
        knn_images.normal_scores(f[:3], (1, 3), n=2)


def test_settings_that_cannot_be_computed_are_named():
    for change, message in (
        ({"k": "1-40"}, "training patches"),
        ({"instance": "strange"}, "gaussian"),
        ({"covariance": "full"}, "shrunk"),
        ({"metric": "cosine"}, "linf"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            KnnImages(**{**SETTING, **change})
    config = {"images": {"tile": {"source": "mvtec"}}, "features": {"small_cnn": {}}, "data": "nowhere"}
    with pytest.raises(ConfigurationError, match="no image set 'title'; did you mean 'tile'"):
        KnnImages(**{**SETTING, "dataset": "title"}).require(config)
    with pytest.raises(ConfigurationError, match="features: there is no network 'small_cn'; did you mean 'small_cnn'"):
        KnnImages(**{**SETTING, "dataset": "tile", "features": "small_cn"}).require(config)
    with pytest.raises(MissingDataError, match="images: tile: url"):
        KnnImages(**{**SETTING, "dataset": "tile"}).require(config)


def test_a_map_and_examples_and_noise(images, features, monkeypatch, tmp_path):
    monkeypatch.setattr(knn_images, "BLOCK", (2, 6))
    monkeypatch.setattr(image_views, "BLOCK", (2, 6))
    setting = KnnImages(**SETTING)
    seen = image_views.pvalue_map(setting, images, features, 1, level=0.1)
    assert seen.picture.shape == (1, 32, 96) and seen.detected.shape == (2, 6)
    assert np.isfinite(seen.selective).sum() == seen.detected.sum() and not (seen.rejected & ~seen.detected).any()
    np.testing.assert_array_equal(seen.rejected, benjamini_yekutieli(seen.selective.ravel()).reshape(2, 6) <= 0.1)
    found, looked_at = image_views.examples(setting, images, features, 1, alpha=0.5, attempts=12)
    assert found and looked_at["normal"] >= 1
    assert len(seen.table) == 12 and seen.table["detected"].sum() == seen.detected.sum()
    np.savez(tmp_path / "examples.npz", **image_views.examples_content(found, images))
    np.savez(tmp_path / "none.npz", **image_views.examples_content([], images))
    table, pixels = image_views.examples_table({"a": tmp_path / "none.npz", "gravel": tmp_path / "examples.npz"})
    assert list(table["selective"]) == [example.selective for example in found] and set(table["dataset"]) == {"gravel"}
    for example, (image, patch, neighbour) in zip(found, pixels.values(), strict=True):
        np.testing.assert_array_equal(image, images.images[example.image])
        np.testing.assert_array_equal(patch, example.patch)
        np.testing.assert_array_equal(neighbour, example.neighbour)
    assert list(table["neighbourhood"]) == [example.neighbourhood for example in found]
    for example in found:
        assert 0 < example.neighbourhood <= 1 and example.neighbourhood != example.selective
        np.testing.assert_array_equal(example.patch, images.patches([example.image], example.position)[0])
        assert (example.selective <= 0.5) == (example.truth == "anomaly")
    noise = image_views.noise_adequacy(images, 1, n=30, repetitions=2)
    assert set(noise) == {"isotropic", "diagonal", "shrunk"}
    assert all((np.diff(values["residual"]) >= 0).all() for values in noise.values())
