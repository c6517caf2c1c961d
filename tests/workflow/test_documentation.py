"""Pages that have commands and files for the pipeline, followed to the letter."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.data.volumes import write_lgg
from tests.workflow.conftest import PARTS, ROOT, TINY, Pipeline

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("documentation")]

CREATE = re.compile(r"create `([^`]+)`[^\n]*(?:\n[^\n`]+)*:\n\n```\w+\n(.*?)```", re.DOTALL | re.IGNORECASE)
COMMAND = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def test_the_page_on_adding_a_baseline_works_as_written(tmp_path):
    page = (ROOT / "docs" / "adding-a-baseline.md").read_text(encoding="utf-8")
    for part in [*PARTS, "tests", "pyproject.toml"]:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tmp_path / part)

    created, commands = CREATE.findall(page), COMMAND.findall(page)
    assert [path for path, _ in created] == [
        "src/sigad/study/methods/sidak.py",
        "workflow/rules/trials/sidak.smk",
        "config/sidak.yaml",
    ]
    assert len(commands) == 2
    for path, text in created:
        (tmp_path / path).write_text(text, encoding="utf-8")
    for command in commands:
        words = command.split()
        # The copy is tested, not the package that is installed.
        done = subprocess.run(
            [sys.executable, "-m", *words, *(["-p", "no:cacheprovider"] if words[0] == "pytest" else [])],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "passed" in done.stdout
    numbers = pd.read_csv(tmp_path / "results" / "sidak" / "figures" / "sidak_over_signal.csv")
    sidak, bonferroni = (
        numbers[numbers["method"] == name].set_index("signal")["rate"] for name in ("sidak", "bonferroni_n")
    )
    assert len(sidak) == 3 and (sidak >= bonferroni).all()


def test_the_experiment_on_tumours_is_laid_out_as_written(tmp_path):
    """Its plan, on scans made for the test: a run takes minutes."""
    page = (ROOT / "docs" / "real-images.md").read_text(encoding="utf-8")
    (experiment,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"`snakemake (--configfile tumours\.yaml [^`]+)`", page)
    pipeline, rng = Pipeline(tmp_path, TINY), np.random.default_rng(0)
    for i in range(2):
        write_lgg(tmp_path / "heads", f"TCGA_CS_494{i}_19960909", rng)
    (tmp_path / "tumours.yaml").write_text(experiment.replace("folder: null", "folder: heads"), encoding="utf-8")
    planned = pipeline.planned(*command.split())
    one = {"prepare_stack", "train_detector", "plot_rates"}
    assert {rule: planned.pop(rule) for rule in one} == dict.fromkeys(one, 1)
    assert set(planned) == {"test_lattice", "test_naive", "test_conformal"}
