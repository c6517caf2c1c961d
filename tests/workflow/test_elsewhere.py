"""The workflow where others use it: from another folder, and as a module of another workflow."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from tests.workflow.conftest import ROOT

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("elsewhere")]

# A home folder that is not there and cannot be made.
NO_HOME = {"HOME": "/dev/null/home"}
# One small experiment of its own beside those of the papers.
OVERLAY = {
    "pathvars": {"results": "out", "logs": "out/logs", "benchmarks": "out/benchmarks"},
    "calibration": 200,
    "experiments": {
        "tiny": {
            "kind": "knn_synthetic",
            "measure": "type1",
            "repetitions": 100,
            "methods": ["naive"],
            "settings": {"quantile": 0.5, "d": 3},
            "grid": {"n": [20]},
            "plot": {"type": "rates", "x": "n", "caption": "A tiny figure."},
        }
    },
}
MODULE = f"""
configfile: "{ROOT}/config/config.yaml"
configfile: "{ROOT}/config/datasets.yaml"
configfile: "overlay.yaml"


module sigad:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config


use rule * from sigad as sigad_*


rule count:
    input:
        "out/figures/tiny.csv",
    output:
        "lines.txt",
    shell:
        "wc -l < {{input}} > {{output}}"
"""


@pytest.fixture
def snakemake(tmp_path):
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(OVERLAY))

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
            cwd=tmp_path,
            env=os.environ | NO_HOME | {"XDG_CACHE_HOME": str(tmp_path / ".cache")},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    return run


def check_figure(folder):
    assert pd.read_csv(folder / "out" / "figures" / "tiny.csv")["n_trials"].tolist() == [100]
    assert (folder / "out" / "figures" / "tiny.pdf").is_file()


def test_from_another_folder(snakemake, tmp_path):
    there = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "overlay.yaml"]
    snakemake("tiny", *there)
    check_figure(tmp_path)
    assert "Nothing to be done" in snakemake("tiny", *there)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache", ".snakemake", "out", "overlay.yaml"]


def test_as_a_module(snakemake, tmp_path):
    (tmp_path / "Snakefile").write_text(MODULE)
    snakemake("count")
    check_figure(tmp_path)
    assert (tmp_path / "lines.txt").read_text().strip() == "2"
    # The short names of figures have the prefix, and say what they show.
    assert "Nothing to be done" in snakemake("sigad_tiny")
    listed = snakemake("--list-target-rules").splitlines()
    assert "sigad_tiny (A tiny figure.)" in listed and "sigad_all" in listed


def test_a_dry_run_of_the_papers_configuration_is_one_page(snakemake):
    output = snakemake("--snakefile", str(ROOT / "Snakefile"), "--dry-run", "--quiet", "rules")
    assert "total" in output and len(output.splitlines()) < 150


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_finds_another_place_for_caches_where_there_is_no_home():
    environment = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"} | NO_HOME
    done = subprocess.run(["make", "-n", "figures"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert f"XDG_CACHE_HOME={ROOT}/.snakemake/cache .venv/bin/snakemake" in done.stdout.replace('"', "")
