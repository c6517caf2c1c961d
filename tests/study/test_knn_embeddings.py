"""Trials on embeddings of image patches: every method that serves them, and the parts of the normal images."""

import numpy as np
import pytest

from sigad.data.embeddings import Embeddings
from sigad.data.mvtec import read_category
from sigad.errors import ConfigurationError, MissingDataError
from sigad.seeds import trial_streams
from sigad.study import methods
from sigad.study.kinds.knn_embeddings import KnnEmbeddings
from sigad.study.rates import rejection_rate, uniformity
from sigad.study.run import run_trials
from tests.real_data import shared

SETTING = {"dataset": "gravel", "features": "small_cnn", "k": "1-5", "quantile": 0.7}
METHODS = [name for name in methods.names() if methods.load(name).needs <= KnnEmbeddings.offers]


@pytest.fixture(scope="module")
def embeddings():
    """Gaussian features of 400 images at 2 x 2 positions, with one covariance each; anomalies are shifted."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 2, 420, 6)) @ rng.normal(size=(2, 2, 6, 6))
    normal = np.arange(420) < 400
    anomalous = np.zeros((2, 2, 420), bool)
    anomalous[1, 0, 400:] = True
    values[1, 0, 400:] += 6
    return Embeddings("gravel", values.astype(np.float32), normal, anomalous)


def run(method, embeddings, repetitions=range(40), **changes):
    streams = trial_streams(3, "conformance", "embeddings", repetitions)
    return run_trials(KnnEmbeddings(**SETTING | changes), methods.load(method)(), streams, embeddings=embeddings)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_sees_the_same_trials_and_none_is_lost(method, embeddings):
    rows, reference = run(method, embeddings), run("naive", embeddings)
    tested = rows["status"] == "tested"
    assert 0 < tested.sum() and len(rows["status"]) == 40 and not rows["reason"].any()
    if methods.load(method).needs_selection:
        np.testing.assert_array_equal(rows["status"], reference["status"])
    assert ((rows["p_value"][tested] >= 0) & (rows["p_value"][tested] <= 1)).all()
    parts = [run(method, embeddings, range(start, start + 20)) for start in (0, 20)]
    np.testing.assert_array_equal(np.concatenate([part["p_value"] for part in parts]), rows["p_value"])


def test_methods_of_tables_serve_embeddings_too():
    assert {"proposed", "neighbourhood", "neighbourhood_plugin", "bonferroni", "naive", "hotelling_t2"} <= set(METHODS)


@pytest.mark.parametrize("method", ["proposed", "neighbourhood"])
def test_p_values_are_uniform_where_features_are_normal(method, embeddings):
    """Some 450 detected patches; KS p below 1e-4 has that probability."""
    rows = run(method, embeddings, range(1500))
    p = rows["p_value"][rows["status"] == "tested"]
    assert len(p) > 350 and uniformity(p).ks_p_value > 1e-4


def test_power(embeddings):
    rows = run("neighbourhood", embeddings, range(100), instance="anomaly")
    rate = rejection_rate(rows["status"], rows["null_true"], rows["p_value"], measure="power", alpha=0.05)
    assert rate.n_counted > 50 and rate.rate > 0.5


def test_what_cannot_be_had_is_named():
    config = {"images": {"tile": {"source": "mvtec"}}, "features": {"small_cnn": {}}, "data": "nowhere"}
    with pytest.raises(ConfigurationError, match="features: there is no network 'small_cn'; did you mean 'small_cnn'"):
        KnnEmbeddings(**SETTING | {"dataset": "tile", "features": "small_cn"}).require(config)
    with pytest.raises(MissingDataError, match="images: tile: url"):
        KnnEmbeddings(**SETTING | {"dataset": "tile"}).require(config)


def test_patches_of_real_images():
    """MVTec AD transistor at 256 pixels: a draw keeps the images of its parts apart, and finds defects."""
    images = read_category(shared("mvtec_ad_256/transistor"), patch=64)
    embeddings = Embeddings.of(images, lambda patches: patches[..., ::16, ::16].reshape(len(patches), -1))
    assert embeddings.values.shape == (4, 4, 313, 48) and embeddings.normal.sum() == 273
    rows = run("neighbourhood", embeddings, range(60), dataset="transistor", instance="anomaly")
    tested = rows["status"] == "tested"
    assert not rows["reason"].any() and tested.mean() > 0.5
    assert (rows["null_true"][tested] == False).all()  # noqa: E712
