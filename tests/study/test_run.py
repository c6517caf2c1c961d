"""The design of experiments and the synthetic trials."""

import numpy as np
import pytest

from sigad.data.synthetic import draw_knn_instances
from sigad.errors import ConfigurationError
from sigad.study.chunks import chunk_names, chunk_range
from sigad.study.design import grid_values, lay_out
from sigad.study.kinds.knn_synthetic import calibrate_threshold
from sigad.study.knn_problems import parse_candidates
from sigad.study.rows import read_rows, write_rows
from sigad.study.seeds import trial_streams
from tests.settings import SETTING

CONFIG = {"kinds": {"knn_synthetic": SETTING}, "repetitions": 250, "chunk_size": 100}
ENTRY = {
    "kind": "knn_synthetic",
    "measure": "type1",
    "methods": ["proposed", "naive"],
    "grid": {"n": [20, 30]},
    "plot": {"type": "rates", "x": "n", "caption": ""},
}
POINTS = {"n=20": {"n": 20}, "n=30": {"n": 30}}


def test_chunks_cover_the_repetitions_and_stay_when_there_are_more():
    assert chunk_names(250, 100) == ["00000-00099", "00100-00199", "00200-00249"]
    assert [i for name in chunk_names(250, 100) for i in chunk_range(name)] == list(range(250))
    assert chunk_names(300, 100)[:2] == chunk_names(200, 100)
    assert chunk_names(1_000_000, 500_000)[1] == "500000-999999"


def test_layout_lists_every_cell():
    experiment = lay_out("e", {**ENTRY, "omit": [{"n": 20, "methods": ["naive"]}]}, POINTS, CONFIG)
    assert experiment.settings["n=20"]["n"] == 20
    assert experiment.settings["n=20"]["d"] == 4
    cells = {(setting, method) for setting, method, _ in experiment.cells}
    assert cells == {("n=20", "proposed"), ("n=30", "proposed"), ("n=30", "naive")}
    assert len(experiment.cells) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["nonsense"]}, "nonsense"),
        ({"settings": {"dd": 3}}, "'dd'"),
        ({"settings": {"n": 3}}, "'n' stands both"),
        ({"settings": {"k": "1-25"}}, "k = 1-25 needs"),
        ({"settings": {"k": "five"}}, "five"),
        ({"settings": {"metric": "l3"}}, "l3"),
        ({"settings": {"model": "gaussian"}}, "gaussian"),
        ({"settings": {"noise": "cauchy", "distance": 0.01}}, "cauchy"),
        ({"settings": {"noise": "skewnorm", "distance": 0.9}}, "0.9"),
        ({"settings": {"quantile": 1.5}}, "quantile"),
        ({"plot": {"type": "rates", "x": "d", "caption": ""}}, "plot.x"),
        ({"kind": "knn_imaginary"}, "knn_imaginary"),
        ({"measure": "fdr"}, "fdr"),
    ],
)
def test_mistakes_are_found_before_anything_runs(change, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        lay_out("my_experiment", {**ENTRY, **change}, POINTS, CONFIG)
    assert "my_experiment" in str(error.value)


def test_the_enabled_data_sets_are_filled_in():
    assert grid_values({"dataset": "enabled", "n": [1]}, ["a", "b"]) == {"dataset": ["a", "b"], "n": [1]}
    with pytest.raises(ConfigurationError, match="no data set"):
        grid_values({"dataset": "enabled"}, [])


@pytest.mark.parametrize(("text", "expected"), [(5, (5,)), ("5", (5,)), ("2-4", (2, 3, 4))])
def test_candidates(text, expected):
    assert parse_candidates(text) == expected


@pytest.mark.parametrize("text", ["0", "4-2", "a-b", "", 0])
def test_bad_candidates(text):
    with pytest.raises(ConfigurationError):
        parse_candidates(text)


def test_clusters_label_which_hypotheses_are_true():
    generators = [stream.data() for stream in trial_streams(1, "e", "s", range(200))]
    trial = draw_knn_instances(generators, model="clusters", n=20, d=3, clusters=4, signal=0.0)
    index = np.zeros(200, dtype=int)
    difference = trial.signal_difference(index)
    true = (difference == 0).all(axis=-1)
    # Same cluster with probability 1/4; 200 trials, 6 standard errors.
    assert 0.06 < true.mean() < 0.44
    residual = trial.x_train - trial.centres[np.arange(200)[:, None], trial.labels]
    assert abs(residual.std() - 1) < 0.03
    assert np.abs(trial.x_train).max() > 6


def test_the_signal_is_added_to_one_coordinate_only():
    draw = lambda signal: draw_knn_instances(  # noqa: E731
        [stream.data() for stream in trial_streams(1, "e", "s", range(5))], model="parametric", n=3, d=4, signal=signal
    )
    difference = draw(2.5).x_test - draw(0.0).x_test
    np.testing.assert_allclose(np.sort(difference, axis=1), [[0, 0, 0, 2.5]] * 5, atol=1e-12)


def test_thresholds_do_not_depend_on_the_signal_and_hit_their_level():
    theta = calibrate_threshold(SETTING, seed=5, size=1000)
    assert theta == calibrate_threshold({**SETTING, "signal": 3.0}, seed=5, size=1000)
    assert theta != calibrate_threshold({**SETTING, "n": 31}, seed=5, size=1000)


def test_rows_survive_the_file(tmp_path):
    rows = {
        "rep": np.array([0, 1, 2]),
        "status": np.array(["tested", "not_selected", "failed"], dtype=object),
        "reason": np.array(["", "", "why"], dtype=object),
        "null_true": np.array([True, None, False], dtype=object),
        "statistic": np.array([1.5, np.nan, np.nan]),
        "p_value": np.array([1e-320, np.nan, np.nan]),
        "p_low": np.array([0.0, np.nan, np.nan]),
        "p_high": np.array([1.0, np.nan, np.nan]),
        "n_evaluations": np.array([1, 0, 0]),
        "seconds": np.array([0.1, 0.0, 0.0]),
    }
    write_rows(tmp_path / "a.parquet", rows)
    back = read_rows([tmp_path / "a.parquet"], rows)
    for name in rows:
        np.testing.assert_array_equal(back[name], rows[name])
