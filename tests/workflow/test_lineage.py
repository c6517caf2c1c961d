"""After a failure nothing outdated looks current: what a result is made from is among the params of what follows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import TINY, Pipeline

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("lineage")]


def experiment(kind, methods, plot, **more):
    return {"kind": kind, "measure": "type1", "methods": methods, "plot": {**plot, "caption": "A test."}, **more}


# One experiment of every kind, and every way of drawing.
EXPERIMENTS = {
    "synthetic": experiment("knn_synthetic", ["proposed", "naive"], {"type": "rates", "x": "n"}, grid={"n": [20, 30]}),
    "uniform": experiment("knn_synthetic", ["proposed"], {"type": "uniformity"}, grid={"n": [20]}),
    "tables": experiment("knn_tabular", ["naive"], {"type": "rates", "x": "dataset"}, grid={"dataset": ["mine"]}),
    "validity": experiment(
        "knn_tabular",
        ["proposed", "proposed_plugin", "neighbourhood", "neighbourhood_plugin"],
        {"type": "rates", "x": "dataset"},
        grid={"dataset": ["mine"]},
    ),
    "images": experiment(
        "knn_images",
        ["naive"],
        {"type": "rates", "x": "dataset"},
        settings={"features": "small_cnn"},
        grid={"dataset": ["brick"]},
    ),
    "embeddings": experiment(
        "knn_embeddings",
        ["naive"],
        {"type": "rates", "x": "dataset"},
        settings={"features": "small_cnn"},
        grid={"dataset": ["brick"]},
    ),
    "pixels": experiment("localization_synthetic", ["naive"], {"type": "rates", "x": "size"}, grid={"size": [8, 16]}),
    "cost": experiment("localization_synthetic", ["naive"], {"type": "cost", "x": "size"}, grid={"size": [8]}),
    "stacks": experiment(
        "localization_images",
        ["naive"],
        {"type": "rates", "x": "detector"},
        settings={"dataset": "brick", "size": 16},
        grid={"detector": ["autoencoder", "diffusion"]},
    ),
}
FIGURES = {
    "images": ["images", "embeddings", "image_noise", "fig05_examples", "image_map_brick"],
    "pixels": ["pixels", "cost", "dal_training"],
}
KNN, ALL = ["synthetic", "uniform"], [*EXPERIMENTS, "image_noise", "dal_training"]

CODE = "\nX = 1\n"
# What is changed, and some of the figures that must be made anew.
CHANGES = {
    "seed": ({"config": {"seed": 7}}, ALL),
    "calibration": ({"config": {"calibration": 300}}, KNN),
    "training": ({"config": {"training": {"epochs": 3}}}, FIGURES["pixels"]),
    "repetitions": ({"config": {"repetitions": 120}}, list(EXPERIMENTS)),
    "setting": ({"config": {"experiments": {"synthetic": {"settings": {"quantile": 0.6}}}}}, ["synthetic"]),
    "grid": ({"config": {"experiments": {"synthetic": {"grid": {"n": [20]}}}}}, ["synthetic"]),
    "entry of a table": ({"config": {"tabular": {"mine": {"normal": "bad"}}}}, ["tables"]),
    "content of a table": (
        {"append": {"mine.csv": "1,1,1,1e308,good\n"}},
        ["tables", "validity", "real_type1", "diagnosis"],
    ),
    "entry of images": ({"config": {"images": {"brick": {"patch": 32}}}}, FIGURES["images"]),
    "entry of features": ({"config": {"features": {"small_cnn": {"layer": "9"}}}}, FIGURES["images"]),
    "entry of a stack": ({"config": {"stacks": {"brick": {"side": 64}}}}, ["stacks", "diagnosis"]),
    "training of a detector": ({"config": {"detectors": {"autoencoder": {"epochs": 3}}}}, ["stacks", "diagnosis"]),
    "false discovery rate": ({"config": {"false_discovery_rate": 0.2}}, ["image_map_brick"]),
    "code of a method": (
        {"append": {"src/sigad/study/methods/naive.py": CODE}},
        ["synthetic", "tables", "images", "embeddings", "pixels"],
    ),
    "code of a kind": ({"append": {"src/sigad/study/kinds/knn_tabular.py": CODE}}, ["tables"]),
    "code that kinds share": ({"append": {"src/sigad/study/knn_rows.py": CODE}}, ["tables", "embeddings", "diagnosis"]),
    "code of the regions": ({"append": {"src/sigad/inference/region.py": CODE}}, KNN),
    **{
        f"code of {stage}": ({"append": {f"workflow/stages/{stage}.py": CODE}}, figures)
        for stage, figures in {
            "test": list(EXPERIMENTS),
            "calibrate": KNN,
            "prepare_table": ["tables"],
            "prepare_images": FIGURES["images"],
            "prepare_features": FIGURES["images"],
            "embed_images": ["embeddings", "diagnosis"],
            "plot_validity": ["real_type1"],
            "diagnose": ["diagnosis"],
            "show_images": ["image_noise", "image_map_brick"],
            "train_diffusion": FIGURES["pixels"],
            "prepare_stack": ["stacks", "diagnosis"],
            "train_detector": ["stacks"],
            "plot_rates": ["synthetic", "tables", "real_type1"],
        }.items()
    },
}


def write_table(path: Path) -> None:
    rows = [f"{i % 7},{i % 11},{i % 13},{(i * i) % 17},{'bad' if i % 20 == 0 else 'good'}" for i in range(400)]
    path.write_text("\n".join(["a,b,c,d,verdict", *rows]) + "\n")


MINE = {"mine": {"source": "csv", "path": "mine.csv", "label": "verdict", "normal": "good"}}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The jobs before any change, and after each."""
    pipeline = Pipeline(tmp_path_factory.mktemp("graphs"), {**TINY, "experiments": EXPERIMENTS})
    write_table(pipeline.folder / "mine.csv")
    brick = {"source": "package", "patch": 16}
    stacks = {"brick": {"source": "package", "side": 32}}
    pipeline.write_datasets({"tabular": MINE, "images": {"brick": brick}, "stacks": stacks})
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("graph.py"), pipeline.folder],
        input=json.dumps([{}, *(change for change, _ in CHANGES.values())]),
        cwd=pipeline.folder,
        env=pipeline.environment() | {"PYTHONPATH": str(pipeline.folder / "src")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    before, *after = json.loads(done.stdout)
    return before, dict(zip(CHANGES, after, strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reaches_all_that_follows_from_it(graphs, change):
    before, after = graphs[0], graphs[1][change]
    changed = {job for job in after if job not in before or after[job][0] != before[job][0]}
    for job, (_, needs) in after.items():
        if set(needs) & changed and job.partition(" ")[2]:  # a rule without outputs, a target, is always looked at
            assert job in changed, f"{job} does not know that {sorted(set(needs) & changed)} will change"
    for figure in CHANGES[change][1]:
        assert any(f"/figures/{figure}.csv" in job for job in changed), f"{figure} is not made anew"


def test_a_change_reaches_nothing_else(graphs):
    before, after = graphs

    def changed(name):
        return {
            job.partition(" ")[0] for job, (params, _) in after[name].items() if before.get(job, [None])[0] != params
        }

    assert changed("training") == {"train_diffusion", "test_naive", "plot_rates", "plot_cost", "plot_training"}
    of_tables = {f"test_{name}" for name in ("naive", *EXPERIMENTS["validity"]["methods"])}
    drawn = {"plot_rates", "plot_validity", "diagnose"}
    assert changed("content of a table") == {"prepare_table", *of_tables, *drawn}
    assert changed("code of plot_rates") == {"plot_rates", "plot_validity"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A table, synthetic instances and images, all figures made."""
    chosen = {name: EXPERIMENTS[name] for name in ("synthetic", "tables", "pixels")}
    chosen["synthetic"] |= {"settings": {"quantile": 0.5, "d": 3}, "grid": {"n": [20]}}
    chosen["pixels"] |= {"repetitions": 2, "grid": {"size": [8]}}
    training = {"images": 8, "epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
    pipeline = Pipeline(tmp_path_factory.mktemp("lineage"), {**TINY, "training": training, "experiments": chosen})
    write_table(pipeline.folder / "mine.csv")
    pipeline.write_datasets({"tabular": MINE})
    pipeline.run()
    return pipeline


def append(path, text):
    return lambda pipeline: pipeline.folder.joinpath(path).write_text(pipeline.folder.joinpath(path).read_text() + text)


# A figure, what is done, the stage that is killed (if any), and the cause that is told.
WAYS = {
    "a training is killed": ("pixels", {"training": {"epochs": 10**6}}, "train_diffusion", "ended from outside"),
    "a method raises": (
        "synthetic",
        append(
            "src/sigad/study/methods/naive.py",
            "\ndef log_pvalues(problems):\n    raise RuntimeError('made to raise')\n",
        ),
        None,
        "RuntimeError: made to raise",
    ),
    "a table is emptied": ("tables", lambda p: (p.folder / "mine.csv").write_text(""), None, "mine"),
    "a table overflows": ("tables", append("mine.csv", "1,1,1,1e308,good\n"), None, "mine"),
    "the rates are killed after more repetitions": (
        "synthetic",
        {"repetitions": 120},
        "plot_rates",
        "ended from outside",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_second_run_after_a_failed_one_fails_too(finished, tmp_path, way):
    figure, change, killed, cause = WAYS[way]
    pipeline = finished.copy(tmp_path / "copy")
    if callable(change):
        change(pipeline)
        overlay = []
    else:
        overlay = pipeline.overlay(change)
    for _ in range(2):
        with pipeline.killing(killed):
            output = pipeline.run(f"results/figures/{figure}.csv", *overlay, fails=True)
        assert "Nothing to be done" not in output
        # The last words name the job that failed, its log, and why.
        told = re.search(r"^[12] jobs? failed:\n((?:\w+: .*\n  .*\n  .*\n)+)Complete log", output, re.MULTILINE)
        assert told, output[-3000:]
        last = told[1].splitlines()
        assert any(line.startswith("  log: logs/") for line in last)
        assert any(cause in line for line in last), output[-3000:]


def test_a_table_from_an_address_is_not_made_anew_but_when_it_was_changed(finished, tmp_path):
    pipeline = finished.copy(tmp_path / "copy")
    entry = {**MINE["mine"], "source": "url", "url": (pipeline.folder / "mine.csv").as_uri()}
    pipeline.write_datasets({"tabular": {"mine": entry}})
    target = "results/figures/tables.csv"
    pipeline.run(target)
    assert "Nothing to be done" in pipeline.run(target)
    pipeline.folder.joinpath("data/tabular/mine.csv").write_text("")
    for _ in range(2):
        assert "prepare_table" in pipeline.run(target, fails=True)
