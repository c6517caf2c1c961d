"""The pipeline as a user meets it: dry runs, a run, a second run, mistakes, edits, kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from sigad.study.design import lay_out_all
from tests.workflow.conftest import OTHERS, PARTS, ROOT, TINY, Pipeline

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]


def rows_of(pipeline, method):
    """All rows of a method, without the one column that depends on the clock."""
    files = pipeline.files(f"results/trials/rates/{method}/*/*.parquet")
    return pd.concat([pq.read_table(path).to_pandas() for path in files], ignore_index=True).drop(columns="seconds")


class TestAFinishedRun:
    def test_every_figure_has_its_numbers_and_every_job_its_log(self, finished):
        for name in ("rates", "tables", "uniformity", "fig06_models", "real_type1", "diagnosis"):
            for suffix in ("pdf", "png", "csv"):
                path = finished.folder / "results" / "figures" / f"{name}.{suffix}"
                assert path.stat().st_size > 100, path
        logs = finished.files("logs/test/rates/*/*/*.log")
        assert len(logs) == 6
        assert all("tested" in log.read_text() for log in logs)
        assert finished.files("benchmarks/test/rates/*/*/*.tsv")

    def test_what_holds_on_real_data_is_told_of_each_data_set(self, finished):
        results = finished.folder / "results"
        datasets = set(pd.read_csv(results / "rates" / "tables.csv")["dataset"])
        assert len(datasets) >= 3
        for name in ("figures/real_type1.csv", "figures/diagnosis.csv", "tables/diagnosis.csv"):
            assert set(pd.read_csv(results / name)["dataset"]) == datasets

    def test_the_plotted_numbers_are_the_rows(self, finished):
        plotted = pd.read_csv(finished.folder / "results" / "figures" / "rates.csv").set_index("method")
        for method in ("proposed", "naive", "uniform"):
            rows = rows_of(finished, method)
            tested = rows[rows["status"] == "tested"]
            assert plotted.loc[method, "n_trials"] == len(rows) == 100
            assert plotted.loc[method, "n_tested"] == len(tested) > 20
            assert plotted.loc[method, "n_rejected"] == (tested["p_value"] <= 0.05).sum()

    def test_a_second_run_does_nothing(self, finished):
        assert "Nothing to be done" in finished.run()

    def test_touching_files_re_runs_nothing(self, finished):
        for path in [
            *finished.files("src/**/*.py"),
            *finished.files("workflow/**/*"),
            *finished.files("config/*.yaml"),
        ]:
            path.touch()
        for path in finished.files("results/calibration/*.parquet"):
            path.touch()
        assert finished.planned() == {}

    def test_data_sets_left_out_are_told_with_the_reason(self, finished):
        assert "Data set left out: heart" in finished.output
        table = pd.read_csv(finished.folder / "results" / "tables" / "datasets.csv").set_index("dataset")
        assert table.loc["cancer", "status"] == "used"
        assert table.loc["heart", "status"] == "left out"
        assert "KAGGLE" in table.loc["heart", "reason"]

    def test_the_report_holds_every_figure_with_its_numbers_and_caption(self, finished):
        finished.run("--report", "report.zip")
        with zipfile.ZipFile(finished.folder / "report.zip") as archive:
            names = {Path(name).name for name in archive.namelist()}
            text = "".join(archive.read(n).decode(errors="ignore") for n in archive.namelist() if n.endswith(".html"))
        for figure in ("rates", "tables", "uniformity", "fig06_models"):
            assert {f"{figure}.png", f"{figure}.csv"} <= names
        assert "A test." in text
        assert "How to read the figures" in text


def test_editing_one_baseline_re_runs_that_baseline_only(finished, tmp_path):
    copy = shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    pipeline = object.__new__(Pipeline)
    pipeline.folder = copy
    path = copy / "src" / "sigad" / "study" / "methods" / "uniform.py"
    path.write_text(path.read_text() + "\nX = 1\n")
    assert pipeline.planned() == {"all": 1, "test_uniform": 2, "plot_rates": 1}
    path = copy / "src" / "sigad" / "inference" / "region.py"
    path.write_text(path.read_text() + "\nX = 1\n")
    planned = pipeline.planned()
    assert planned["test_proposed"] > 2 and planned["test_naive"] == 2 and "list_datasets" not in planned


def test_more_repetitions_run_the_new_chunks_only(finished, tmp_path):
    copy = shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    pipeline = object.__new__(Pipeline)
    pipeline.folder = copy
    config = {**yaml.safe_load((copy / "config" / "config.yaml").read_text()), "experiments": TINY["experiments"]}
    pipeline.write({**config, "repetitions": 120})
    planned = pipeline.planned()
    assert planned == {"all": 1, **dict.fromkeys(("test_proposed", "test_naive", "test_uniform"), 1)} | {
        "plot_rates": 1,
    }


def test_chunks_do_not_change_a_byte(finished, pipeline):
    pipeline.write({**yaml.safe_load((pipeline.folder / "config" / "config.yaml").read_text()), "chunk_size": 100})
    pipeline.run("results/rates/rates.csv")
    for method in ("proposed", "naive", "uniform"):
        pd.testing.assert_frame_equal(rows_of(pipeline, method), rows_of(finished, method), check_exact=True)


def test_a_kill_loses_nothing_that_was_computed(pipeline):
    pipeline.write(
        {
            **yaml.safe_load((pipeline.folder / "config" / "config.yaml").read_text()),
            "repetitions": 500,
            "chunk_size": 50,
        }
    )
    target = "results/rates/rates.csv"
    process = subprocess.Popen(
        pipeline.command(target),
        cwd=pipeline.folder,
        env=pipeline.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(pipeline.files("results/trials/**/*.parquet")) < 6 and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # A job that was under way at the kill is not complete; all but the two youngest files are.
    before = {path: path.stat().st_mtime_ns for path in pipeline.files("results/trials/**/*.parquet")}
    complete = sorted(before, key=before.get)[:-2]
    assert 4 <= len(before) < 30
    pipeline.run("--unlock")
    pipeline.run(target)
    assert len(pipeline.files("results/trials/**/*.parquet")) == 30
    assert all(path.stat().st_mtime_ns == before[path] for path in complete)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"repetitons": 5}, "repetitons"),
        ({"experiments": {"rates": {**TINY["experiments"]["rates"], "mesure": "power"}}}, "mesure"),
        ({"experiments": {"rates": {**TINY["experiments"]["rates"], "methods": ["niave"]}}}, "niave"),
        ({"experiments": {"rates": {**TINY["experiments"]["rates"], "settings": {"quantil": 0.5}}}}, "quantil"),
        ({"experiments": {"rates": {**TINY["experiments"]["rates"], "settings": {"k": "1-50"}}}}, "k = 1-50"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_before_anything_runs(pipeline, change, expected):
    pipeline.write({**yaml.safe_load((pipeline.folder / "config" / "config.yaml").read_text()), **change})
    output = pipeline.run(fails=True)
    # One line of ours, after those in which Snakemake says what it reads.
    assert output.splitlines()[-1].startswith("ConfigurationError: ") and expected in output.splitlines()[-1]
    assert "Snakefile" not in output and ".smk" not in output
    assert not pipeline.files("results/**/*.parquet")


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("rate", "; did you mean 'rates'?"),
        ("fig06_model", "; did you mean 'fig06_models'?"),
        ("fig33_x", "."),
        ("figures/fig06_model.png", "; did you mean 'fig06_models'?"),
    ],
)
def test_a_misspelt_figure_is_named(pipeline, target, meant):
    line = pipeline.run(target, fails=True).splitlines()[-1]
    assert line.startswith(f"ConfigurationError: there is no figure or other target {target!r}{meant}")
    assert line.endswith("All of them: snakemake --list-target-rules")


API = """
from pathlib import Path
from snakemake.api import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi

def tried(**config):
    with SnakemakeApi(OutputSettings()) as api:
        settings = dict(resource_settings=ResourceSettings(cores=1), config_settings=ConfigSettings(config=config))
        workflow = api.workflow(**settings, snakefile=Path("Snakefile"))
        workflow.dag(dag_settings=DAGSettings(targets={"rates"})).printrulegraph()

tried()
print("planned")
try:
    tried(repetitons=5)
except Exception as error:
    print("raised", type(error).__name__, error)
"""


def test_a_program_that_uses_snakemake_gets_an_exception(pipeline):
    done = subprocess.run(
        [sys.executable, "-c", API], cwd=pipeline.folder, env=pipeline.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "planned\nraised WorkflowError ConfigurationError" in done.stdout
    assert "did you mean 'repetitions'?" in done.stdout


def test_a_required_data_set_that_is_missing_stops_the_run_before_it_starts(pipeline):
    path = pipeline.folder / "config" / "datasets.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["tabular"]["heart"]["enabled"] = True
    path.write_text(yaml.safe_dump(manifest))
    output = pipeline.run(fails=True)
    assert "heart" in output and "KAGGLE_API_TOKEN" in output and "data/tabular/heart.csv" in output
    assert not pipeline.files("results/**/*.parquet")


def test_a_misspelt_key_of_a_data_set_is_named(pipeline):
    path = pipeline.folder / "config" / "datasets.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["tabular"]["cancer"]["lable"] = "target"
    path.write_text(yaml.safe_dump(manifest))
    assert "lable" in pipeline.run(fails=True)


def test_a_table_of_the_users_own(pipeline):
    rng = __import__("numpy").random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 4)), columns=list("abcd"))
    frame["verdict"] = ["bad" if i % 20 == 0 else "good" for i in range(400)]
    frame.to_csv(pipeline.folder / "mine.csv", index=False)
    path = pipeline.folder / "config" / "datasets.yaml"
    path.write_text(
        yaml.safe_dump(
            {"tabular": {"mine": {"source": "csv", "path": "mine.csv", "label": "verdict", "normal": "good"}}}
        )
    )
    pipeline.write(
        {
            **yaml.safe_load((pipeline.folder / "config" / "config.yaml").read_text()),
            "experiments": {"tables": OTHERS["tables"]},
        }
    )
    pipeline.run("results/rates/tables.csv")
    rates = pd.read_csv(pipeline.folder / "results" / "rates" / "tables.csv")
    assert set(rates["dataset"]) == {"mine"}
    assert (rates["n_trials"] == 100).all()


@pytest.mark.parametrize("overlay", [[], ["--configfile", "config/quick.yaml"]])
def test_dry_runs_of_the_configurations_that_ship(tmp_path, overlay):
    for part in PARTS:
        (tmp_path / part).symlink_to(ROOT / part)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--dry-run", "--quiet", *overlay],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_slurm_profile_keeps_the_default_one(pipeline):
    output = pipeline.run("--profile", "profiles/slurm", "--dry-run", "results/rates/rates.csv")
    assert "profiles/default" in output
    assert "test_naive" in output


RESOURCES = """
import json, os, sys
from pathlib import Path
from snakemake.api import DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi

with SnakemakeApi(OutputSettings()) as api:
    flow = api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=Path("Snakefile"))
    flow.dag(DAGSettings(targets={"all"})).printrulegraph()
    found = {}
    trials = [job for job in flow._workflow.dag.jobs if job.rule.name.startswith("test_")]
    for job in trials:
        for job.attempt in (1, 2, 3):
            asked = [job.resources[name] for name in ("mem_mb", "runtime")]
            found.setdefault(str(job.output[0]), []).append(asked)
print("\\n" + json.dumps(found))
"""


def test_resources_follow_the_measured_cost_and_the_attempt(pipeline):
    plot = {"type": "rates", "x": "size", "caption": "A test."}
    shared = {"kind": "localization_synthetic", "measure": "type1", "methods": ["proposed"], "plot": plot}
    experiments = {f"size{size}": {**shared, "grid": {"size": [size]}} for size in (8, 64)}
    config = yaml.safe_load((pipeline.folder / "config" / "config.yaml").read_text()) | {"experiments": experiments}
    pipeline.write(config)
    done = subprocess.run(
        [sys.executable, "-c", RESOURCES],
        cwd=pipeline.folder,
        env=pipeline.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    asked, first = json.loads(done.stdout.splitlines()[-1]), {}
    for name, experiment in lay_out_all(config, []).items():
        for job in experiment.jobs:
            (memory, minutes), *others = asked[f"results/trials/{name}/{job.method}/{job.part}/{job.chunk}.parquet"]
            # Twice what it takes, at least; and more at every attempt.
            assert minutes > 2 * experiment.seconds(*job) / 60
            assert others == [[2 * memory, 2 * minutes], [3 * memory, 3 * minutes]]
            first[name] = minutes
    assert first["size64"] > 10 * first["size8"]
