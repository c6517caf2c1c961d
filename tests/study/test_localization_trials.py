"""The kind localization_synthetic: what its trials are, and that every baseline sees the same ones."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sigad.errors import ConfigurationError
from sigad.localization import AutoregressiveCovariance
from sigad.seeds import trial_streams
from sigad.study import methods
from sigad.study.kinds.localization_synthetic import LocalizationSynthetic
from sigad.study.localization_problems import draw_images
from sigad.study.methods.proposed import Proposed
from sigad.study.run import run_trials
from tests.localization.small_detectors import small_unet

SETTING = {"size": 8}
METHODS = [name for name in methods.names() if methods.load(name).needs <= LocalizationSynthetic.offers]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    small_unet().save_pretrained(folder)
    return folder


def run(method, model, repetitions=range(6), **changes):
    streams = trial_streams(3, "localization", "here", repetitions)
    if isinstance(method, str):
        # Few permutations and normals: the tests are about the trials.
        method, few = methods.load(method), {"permutations": 40, "normals": 6}
        method = method(**{name: few[name] for name in method.keys() if name in few})
    return run_trials(LocalizationSynthetic(**{**SETTING, **changes}), method, streams, model=model)


@pytest.mark.parametrize("method", METHODS)
def test_every_baseline(method, model):
    rows, reference = run(method, model), run("naive", model)
    tested = rows["status"] == "tested"
    assert 0 < tested.sum() and not rows["reason"].any()
    if methods.load(method).needs_selection:
        assert tested.sum() < 6
        np.testing.assert_array_equal(rows["status"], reference["status"])
    if methods.load(method).hypotheses is methods.Method.hypotheses:
        np.testing.assert_array_equal(rows["statistic"], reference["statistic"])
    assert ((rows["p_low"] <= rows["p_value"]) & (rows["p_value"] <= rows["p_high"]))[tested].all()
    assert (rows["null_true"][tested] == True).all()  # noqa: E712
    parts = [run(method, model, range(start, start + 2)) for start in (0, 2, 4)]
    for name in ("status", "statistic", "p_value", "p_low", "p_high", "n_evaluations"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), rows[name])
    assert methods.label(method)
    assert (Path(__file__).parents[2] / "workflow" / "rules" / "trials" / f"{method}.smk").is_file()


def test_naive_and_bonferroni(model):
    naive, many = run("naive", model, signal=3.0), run("bonferroni", model, signal=3.0)
    exact = 2 * stats.norm.sf(np.abs(naive["statistic"]))
    np.testing.assert_allclose(naive["p_value"], exact, rtol=1e-9)
    np.testing.assert_allclose(many["p_value"], np.minimum(1, 2.0**64 * exact), rtol=1e-9)
    assert (naive["null_true"] == False).all()  # noqa: E712


def test_a_search_that_stops_at_the_decision_decides_alike(model):
    trials, level = range(25), 0.3
    every, some = run("proposed", model, trials), run(Proposed(decide_at=level), model, trials)
    tested = every["status"] == "tested"
    np.testing.assert_array_equal(some["status"], every["status"])
    np.testing.assert_array_equal(some["p_value"][tested] <= level, every["p_value"][tested] <= level)
    assert ((some["p_low"] > level) | (some["p_high"] <= level))[tested].all()
    assert some["n_evaluations"].sum() < every["n_evaluations"].sum()


def test_nothing_selected_is_a_row(model):
    rows = run("proposed", model, threshold=50.0)
    assert (rows["status"] == "not_selected").all() and np.isnan(rows["p_value"]).all()


def test_smooth_networks_run(tmp_path):
    small_unet(activation="silu").save_pretrained(tmp_path)
    rows = run("wo_pp", tmp_path, activation="silu", threshold=0.4)
    assert (rows["status"] == "tested").any()


def test_images():
    rng = np.random.default_rng(0)
    x, x_ref, signal, covariance = draw_images(LocalizationSynthetic(size=16, signal=2.0), rng)
    assert x.shape == x_ref.shape == (1, 16, 16) and covariance == 1.0
    assert signal.sum() == 2.0 * 25 and signal.max() == 2.0
    # Neighbours in row-major order are correlated by 0.5: the standard error of 4,096 pairs is below 0.02.
    x, x_ref, _, covariance = draw_images(LocalizationSynthetic(size=64, covariance="ar1"), rng)
    for image in (x.ravel(), x_ref.ravel()):
        assert np.corrcoef(image[1:], image[:-1])[0, 1] == pytest.approx(0.5, abs=0.08)
        assert image.var() == pytest.approx(1, abs=0.15)
    assert isinstance(covariance, AutoregressiveCovariance) and covariance.variance == 1.0
    variance = draw_images(LocalizationSynthetic(size=8, variance_images=200), np.random.default_rng(1))[3]
    assert variance != 1.0 and variance == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 12},
        {"covariance": "dense"},
        {"activation": "gelu"},
        {"filter_size": 2},
        {"distance": 0.01, "noise": "t", "covariance": "ar1"},
    ],
)
def test_settings_that_cannot_be_computed(changes):
    LocalizationSynthetic(**SETTING)
    with pytest.raises(ConfigurationError):
        LocalizationSynthetic(**SETTING | changes)


def test_the_side_of_the_anomaly_can_be_set():
    def side(**settings) -> float:
        signal = draw_images(LocalizationSynthetic(size=16, signal=2.0, **settings), np.random.default_rng(0))[2]
        return np.sqrt((signal == 2).sum())

    assert side() == 5 and side(anomaly_size=3) == 3 and side(anomaly_size=16) == 16
    with pytest.raises(ConfigurationError, match="must not exceed the 16 pixels"):
        LocalizationSynthetic.of({"size": 16, "anomaly_size": 17})
