"""The design of experiments, the synthetic trials, and the files of rows."""

import dataclasses
import json
import typing

import numpy as np
import pyarrow.parquet as pq
import pytest

from sigad.data.sealed import check_folder, seal_folder
from sigad.data.synthetic import draw_knn_instances
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError
from sigad.seeds import trial_streams
from sigad.study import kinds, methods
from sigad.study.calibration import calibrate, read_scores, write_scores
from sigad.study.chunks import chunk_names, chunk_range
from sigad.study.design import cut, lay_out, lay_out_all, needed_in
from sigad.study.kinds.knn_synthetic import KnnSynthetic
from sigad.study.problems import CAPABILITIES
from sigad.study.rows import read_rows, trial_facts, write_rows
from sigad.study.run import run_experiment
from tests.settings import SETTING

CONFIG = {
    "alpha": 0.05,
    "repetitions": 250,
    "chunk_size": 100,
    "job_seconds": 60,
    "data": "data",
    "tabular": {"cancer": {}},
}
ENTRY = {
    "kind": "knn_synthetic",
    "measure": "type1",
    "methods": ["proposed", "naive"],
    "grid": {"n": [20, 30]},
    "settings": {"d": 4},
    "plot": {"type": "rates", "x": "n", "caption": ""},
}


def test_chunks_cover_the_repetitions_and_stay_when_there_are_more():
    assert chunk_names(250, 100) == ["00000-00099", "00100-00199", "00200-00249"]
    assert [i for name in chunk_names(250, 100) for i in chunk_range(name)] == list(range(250))
    assert chunk_names(300, 100)[:2] == chunk_names(200, 100)
    assert chunk_names(1_000_000, 500_000)[1] == "500000-999999"


def test_layout_lists_every_cell():
    experiment = lay_out("e", {**ENTRY, "omit": [{"n": 20, "methods": ["naive"]}]}, CONFIG)
    assert experiment.settings["n=20"].n == 20
    assert experiment.settings["n=20"].d == 4
    assert {m: [p.points for p in parts.values()] for m, parts in experiment.parts.items()} == {
        "proposed": [("n=20", "n=30")],
        "naive": [("n=30",)],
    }
    assert [job.chunk for job in experiment.jobs] == 2 * ["00000-00099", "00100-00199", "00200-00249"]
    assert experiment.inputs("naive", "all") == ["calibration/e.parquet"]
    assert needed_in("calibration", {"e": experiment}) == ["e.parquet"] and not needed_in("models", {"e": experiment})


class TestCuttingTheGrid:
    def test_a_cheap_grid_is_one_part_and_a_dear_point_is_its_own(self):
        assert cut({"a": 0.01, "b": 0.02}, 60) == {"all": (("a", "b"), 2000)}
        parts = cut({"a": 0.1, "b": 1, "c": 40, "d": 1000}, 100)
        assert parts == {"a..b": (("a", "b"), 90), "c": (("c",), 2), "d": (("d",), 1)}

    @pytest.mark.parametrize("seed", range(20))
    def test_every_point_is_in_one_part_and_no_job_is_too_long(self, seed):
        rng = np.random.default_rng(seed)
        seconds = {str(i): float(10 ** rng.uniform(-4, 3)) for i in range(rng.integers(1, 30))}
        parts = cut(seconds, 100)
        assert [point for part in parts.values() for point in part.points] == list(seconds)
        for part in parts.values():
            assert part.size == 1 or part.size * sum(seconds[point] for point in part.points) <= 100

    def test_what_every_job_takes_counts(self):
        # Pilots of 30 s at each point: two may be too many for a job; where one is, the job is twice as long.
        assert cut({"a": 1, "b": 1}, 140, once={"a": 30, "b": 30}) == {"all": (("a", "b"), 40)}
        assert cut({"a": 1, "b": 1}, 100, once={"a": 30, "b": 30}) == {"a": (("a",), 70), "b": (("b",), 70)}
        assert cut({"a": 1}, 20, once={"a": 30}) == {"all": (("a",), 30)}
        # A lattice whose spacing is chosen on pilots, and one whose spacing is given.
        entry = {**ENTRY, "kind": "localization_synthetic", "grid": {"size": [8, 16]}, "settings": {}}
        entry |= {"methods": ["lattice", {"lattice": {"spacing": 0.1}}], "plot": {**ENTRY["plot"], "x": "size"}}
        config = {**CONFIG, "chunk_size": None, "job_seconds": 200}
        experiment = lay_out("e", entry, config)
        chosen, given = (experiment.seconds(m, "all", "00000-00009") for m in ("lattice", "lattice-spacing=0.1"))
        pilots = [experiment.methods["lattice"].pilot_seconds(s.cost()) for s in experiment.settings.values()]
        assert chosen == pytest.approx(given + sum(pilots)) and min(pilots) > 1
        assert experiment.parts["lattice"]["all"].size < experiment.parts["lattice-spacing=0.1"]["all"].size

    def test_more_repetitions_only_add_chunks(self):
        jobs = [
            lay_out("e", {**ENTRY, "repetitions": r}, {**CONFIG, "chunk_size": None, "job_seconds": 0.05}).jobs
            for r in (1000, 2000)
        ]
        full = [job for job in jobs[0] if not job.chunk.endswith("-00999")]
        assert len(full) > 2 and set(full) < set(jobs[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["proposd"]}, "'proposd'; did you mean 'proposed'"),
        ({"settings": {"quantil": 0.3}}, "'quantil'; did you mean 'quantile'"),
        ({"settings": {"n": 3}}, "'n' stands both"),
        ({"settings": {"k": "1-25"}}, "k = 1-25 needs"),
        ({"settings": {"k": "five"}}, "five"),
        ({"settings": {"k": "4-2"}}, "4-2"),
        ({"settings": {"metric": "l3"}}, "metric must be one of l2, l1, linf, not 'l3'"),
        ({"settings": {"model": "gaussian"}}, "gaussian"),
        ({"settings": {"noise": "cauchy", "distance": 0.01}}, "cauchy"),
        ({"settings": {"noise": "skewnorm", "distance": 0.9}}, "0.9"),
        ({"settings": {"noise": 3}}, "noise must be text, not 3"),
        ({"settings": {"quantile": 1.5}}, "quantile must be less than 1, not 1.5"),
        ({"settings": {"quantile": "0.9"}}, "quantile must be a number, not the text '0.9'"),
        ({"settings": {"d": -1}}, "d must be at least 1, not -1"),
        ({"settings": {"d": True}}, "d must be an integer, not True"),
        ({"settings": {"d": 2.5}}, "d must be an integer, not 2.5"),
        ({"settings": {"clusters": 0}}, "clusters must be at least 1, not 0"),
        ({"plot": {"type": "rates", "x": "n", "y": "d", "caption": ""}}, r"plot.y: .*'d'"),
        ({"plot": {"type": "rates", "x": "n", "y": "n", "panel": "n", "caption": ""}}, "no panel"),
        (
            {"plot": {"type": "rates", "x": "n", "y": "n", "caption": ""}, "grid": {"n": [20], "k": [2]}},
            "of just these",
        ),
        ({"settings": {"signal": float("nan")}}, "signal must be a number, not nan"),
        ({"grid": {"n": [20, "30"]}}, "at n=30: n must be an integer, not the text '30'"),
        ({"plot": {"type": "rates", "x": "d", "caption": ""}}, "plot.x"),
        ({"plot": {"type": "rates", "x": "method", "caption": ""}}, "plot.x"),
        ({"plot": {"type": "rates", "x": "n", "panel": "methods", "caption": ""}}, "did you mean 'method'"),
        (
            {"plot": {"type": "rates", "x": "n", "series": "n", "caption": ""}, "methods": ["naive", "proposed"]},
            "cannot be told apart",
        ),
        ({"kind": "knn_sinthetic"}, "did you mean 'knn_synthetic'"),
        (
            {"kind": "knn_tabular", "grid": {"dataset": ["canser"]}, "settings": {}, "plot": {"x": "dataset"}},
            "'canser'; did you mean 'cancer'",
        ),
        ({"measure": "fdr"}, "fdr"),
        ({"methods": [{"proposed": {"decide_at": 0.1}}]}, "decides at 0.1"),
        ({"methods": [{"proposed": {"decide_at": 0.05}}], "plot": {"type": "uniformity"}}, "and no other plot"),
        ({"omit": [{"n": 20, "methods": ["niave"]}]}, "'niave'; did you mean 'naive'"),
        ({"omit": [{"nn": 20, "methods": ["naive"]}]}, "'nn'; did you mean 'n'"),
    ],
)
def test_mistakes_are_found_before_anything_runs(change, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        lay_out("my_experiment", {**ENTRY, **change}, CONFIG)
    assert "my_experiment" in str(error.value) and "\n" not in str(error.value)


def test_a_misspelt_experiment_is_named_with_the_nearest():
    config = {**CONFIG, "experiments": {"my_experiment": ENTRY, "my_experimnt": {"repetitions": 5}}}
    with pytest.raises(ConfigurationError, match="'my_experimnt' has no `kind`; did you mean 'my_experiment'"):
        lay_out_all(config, [])


def test_the_enabled_data_sets_are_filled_in():
    entry = {**ENTRY, "kind": "knn_tabular", "grid": {"dataset": "enabled"}, "settings": {}, "plot": {"x": "dataset"}}
    config = {
        **CONFIG,
        "tabular": {
            name: {"source": "package", "module": "sklearn.datasets.load_wine", "label": "t", "normal": 1}
            for name in "ab"
        },
    }
    assert list(lay_out("e", entry, config, ["a", "b"]).settings) == ["dataset=a", "dataset=b"]
    with pytest.raises(ConfigurationError, match="no data set"):
        lay_out("e", entry, config, [])


@pytest.mark.parametrize(("text", "expected"), [(5, (5,)), ("5", (5,)), ("2-4", (2, 3, 4))])
def test_candidates(text, expected):
    assert KnnSynthetic(k=text).candidates == expected


@pytest.mark.parametrize("text", ["0", "4-2", "a-b", "", 0, "1-", 1.5])
def test_bad_candidates(text):
    with pytest.raises(ConfigurationError, match="k must be"):
        KnnSynthetic(k=text)


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


def test_scores_of_normals_do_not_depend_on_the_signal_and_are_kept(tmp_path):
    points = {"a": KnnSynthetic(**SETTING), "b": KnnSynthetic(**SETTING, signal=3.0), "c": KnnSynthetic(n=31)}
    scores = calibrate(points, seed=5, size=300)
    assert len(scores) == 2
    write_scores(tmp_path / "scores.parquet", scores, {"seed": 5})
    for setting in points.values():
        back = setting.load({"calibration": tmp_path / "scores.parquet"})["scores"]
        np.testing.assert_array_equal(back, setting.calibrate(5, 300))
    with pytest.raises(InvalidInputError, match="no scores of"):
        read_scores(tmp_path / "scores.parquet", KnnSynthetic(n=32).distribution)
    (block,) = points["a"].draw(trial_streams(1, "e", "s", range(4)), scores=scores[points["a"].distribution])
    np.testing.assert_array_equal(block[1].calibration_scores, 4 * [points["a"].calibrate(5, 300)])


@pytest.mark.parametrize("capability", sorted(KnnSynthetic.offers))
def test_problems_have_what_their_kind_offers(capability):
    ((_, problems),) = KnnSynthetic(**SETTING).draw(trial_streams(1, "e", "s", range(4)), scores=np.zeros(9))
    wanted = [name for name in vars(CAPABILITIES[capability]) if not name.startswith("_")]
    assert wanted and all(hasattr(problems, name) for name in wanted)


def test_kinds_and_methods_speak_of_capabilities_that_exist():
    for name in kinds.names():
        assert kinds.load(name).offers <= set(CAPABILITIES)
    for name in methods.names():
        assert methods.load(name).needs <= set(CAPABILITIES)


def test_types_of_settings_and_their_choices_say_the_same():
    literals = 0
    for kind in map(kinds.load, kinds.names()):
        hints = typing.get_type_hints(kind)
        for key in dataclasses.fields(kind):
            if typing.get_origin(hints[key.name]) is typing.Literal:
                assert typing.get_args(hints[key.name]) == key.metadata["choices"], (kind, key.name)
                literals += 1
    assert literals


POINTS = {"n=20": KnnSynthetic(n=20, d=4, k=3), "n=30": KnnSynthetic(n=30, d=4, k=3)}
FACTS = trial_facts("e", "naive", 1, "abc", {point: setting.values for point, setting in POINTS.items()})


class TestFilesOfRows:
    """Faults that a disk, a person or another run may put into a file of rows."""

    def rows(self, tmp_path, start=0):
        calibrated = tmp_path / "calibration" / "e.parquet"
        if not calibrated.exists():
            calibrated.parent.mkdir()
            write_scores(calibrated, calibrate(POINTS, 1, 100), {})
        return run_experiment(
            POINTS,
            methods.load("naive")(),
            seed=1,
            experiment="e",
            repetitions=range(start, start + 20),
            results=tmp_path,
        )

    @pytest.fixture
    def path(self, tmp_path):
        write_rows(tmp_path / "rows.parquet", self.rows(tmp_path), FACTS)
        return tmp_path / "rows.parquet"

    def read(self, path, repetitions=range(20), **changes):
        return read_rows(path, list(POINTS), repetitions, {**FACTS, **changes})

    def test_rows_survive_the_file(self, path, tmp_path):
        frame = self.read(path)
        for point, rows in self.rows(tmp_path).items():
            back = frame[frame["setting"] == point].reset_index(drop=True)
            assert back["null_true"].isna().any()
            for name in set(rows) - {"seconds", "null_true"}:
                np.testing.assert_array_equal(back[name].to_numpy(), rows[name])

    def test_another_chunk_in_its_place(self, path, tmp_path):
        write_rows(path, self.rows(tmp_path, start=20), FACTS)
        with pytest.raises(
            InvalidInputError, match=r"rows\.parquet does not hold the repetitions 0-19 of n=20: remove"
        ):
            self.read(path)

    def test_half_a_chunk(self, path):
        with pytest.raises(InvalidInputError, match="repetitions 0-39"):
            self.read(path, range(40))

    @pytest.mark.parametrize(
        "change", [{"seed": 2}, {"method": "proposed"}, {"experiment": "f"}, {"code": "xyz"}, {"settings": {}}]
    )
    def test_made_from_something_else(self, path, change):
        with pytest.raises(InvalidInputError, match=f"its {next(iter(change))} is"):
            self.read(path, **change)

    def test_grid_points_that_do_not_belong(self, path):
        with pytest.raises(InvalidInputError, match="other grid points"):
            read_rows(path, ["n=20"], range(20), FACTS)

    def test_truncated(self, path):
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InvalidInputError, match=r"rows\.parquet cannot be read.*remove it and run again"):
            self.read(path)

    def test_empty_and_absent(self, path):
        path.write_bytes(b"")
        with pytest.raises(InvalidInputError, match="cannot be read"):
            self.read(path)
        path.unlink()
        with pytest.raises(MissingDataError, match=r"rows\.parquet"):
            self.read(path)

    def test_one_value_altered_with_the_facts_kept(self, path):
        table = pq.read_table(path)
        p = table["p_value"].to_numpy().copy()
        p[np.flatnonzero(~np.isnan(p))[0]] = 0.01
        index = table.column_names.index("p_value")
        pq.write_table(table.set_column(index, table.schema.field(index), [p]), path)
        with pytest.raises(InvalidInputError, match="was altered"):
            self.read(path)

    def test_foreign(self, path):
        pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
        with pytest.raises(InvalidInputError, match="as one that sigad wrote"):
            self.read(path)


def test_a_folder_notices_what_happens_to_its_files(tmp_path):
    for name in ("weights.safetensors", "config.json"):
        (tmp_path / name).write_bytes(name.encode())
    with pytest.raises(InvalidInputError, match="no readable list"):
        check_folder(tmp_path)
    seal_folder(tmp_path)
    check_folder(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"else")
    with pytest.raises(InvalidInputError, match=r"weights\.safetensors was altered.*remove it"):
        check_folder(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(InvalidInputError, match=r"weights\.safetensors is missing"):
        check_folder(tmp_path)


def test_facts_are_plain_json():
    facts = trial_facts("e", "naive", 1, "abc", {"a": KnnSynthetic().values})
    assert json.loads(json.dumps(facts)) == facts
