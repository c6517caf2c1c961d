"""What a job imports: each is a process of its own, and most take less time than torch, diffusers or scipy.stats."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sigad.data.table import Table
from sigad.study import kinds, methods
from tests.localization.small_detectors import small_unet

ROOT = Path(__file__).parents[2]
SLOW = {"pandas", "torch", "torchvision", "diffusers", "sklearn", "matplotlib", "seaborn", "scipy.stats"}

TRIALS = """
import json, sys
import numpy as np
from sigad.seeds import trial_streams
from sigad.study import kinds, methods
from sigad.study.rows import write_rows
from sigad.study.run import run_trials
from sigad.study.calibration import write_scores

folder, kind, names, values, given = json.loads(sys.argv[1])
setting = kinds.load(kind).of(values)
for name in names:
    method = methods.load(name)
    few = {key: 3 for key in ("permutations", "normals") if key in method.keys()}
    write_rows(f"{folder}/{name}.parquet", {"here": run_trials(
        setting, method(**few), trial_streams(1, "imports", "here", range(3)), **given
    )}, {})
print(json.dumps(sorted(sys.modules)))
"""


def imported(code, *arguments):
    """The slow packages that a process has imported in the end."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert ended.returncode == 0, ended.stderr
    return SLOW & set(json.loads(ended.stdout.splitlines()[-1]))


def trials(tmp_path, kind, values, given):
    offers = kinds.load(kind).offers
    names = [name for name in methods.names() if methods.load(name).needs <= offers]
    assert len(names) > 4
    return imported(TRIALS, json.dumps([str(tmp_path), kind, names, values, given]))


def test_trials_in_closed_form_need_no_network(tmp_path):
    given = {"scores": [-1.0, -0.5, 0.0, 0.5]}
    assert not trials(tmp_path, "knn_synthetic", {"n": 12, "d": 2, "k": "1-3", "quantile": 0.1}, given)


def test_trials_of_localization_read_their_network_without_diffusers(tmp_path):
    small_unet().save_pretrained(tmp_path / "unet")
    assert trials(tmp_path, "localization_synthetic", {"size": 8}, {"model": str(tmp_path / "unet")}) == {"torch"}


def test_a_table_is_read_without_pandas(tmp_path):
    rng = np.random.default_rng(0)
    table = Table("mine", rng.normal(size=(4, 2)), np.array([True, False, True, True]), ("a", "b"), ("a note",))
    table.save(tmp_path / "mine.parquet")
    code = "import json, sys; from sigad.study import kinds; kind = kinds.load('knn_tabular');"
    code += "kind.of({'dataset': 'mine'}).load({'table': sys.argv[1]}); print(json.dumps(sorted(sys.modules)))"
    assert not imported(code, str(tmp_path / "mine.parquet"))


@pytest.mark.parametrize("stage", ["rates", "uniformity", "cost", "images", "networks"])
def test_figures_need_no_network(stage):
    code = f"import json, sys, sigad.figures.{stage}, sigad.study.summary, sigad.study.image_views; "
    assert not imported(code + "print(json.dumps(sorted(sys.modules)))") & {"torch", "diffusers"}


def test_a_table_is_tested_without_torch():
    code = "import json, sys; from sigad import knn_test; print(json.dumps(sorted(sys.modules)))"
    assert not imported(code)


def test_the_configuration_is_laid_out_without_torch():
    code = "import json, sys, sigad.study.design, sigad.study.configuration; from sigad.study import kinds, methods;"
    code += "[f.load(n) for f in (kinds, methods) for n in f.names()]; print(json.dumps(sorted(sys.modules)))"
    assert not imported(code)
