"""Examples of the README and of the pages, run as written: output and all, but for seconds. Where a page speaks of the
reader's own network, images or files, there are some."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sigad import selective_test

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/any-detector.md", "docs/real-images.md", "docs/which-p-value.md"]
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", re.DOTALL)
SECONDS = re.compile(r"[\d.e-]+ s$", re.MULTILINE)


RNG = np.random.default_rng(0)
CONV = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1)).eval()
OWN = {
    "images.md": {
        "network": nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU()).eval(),
        "x": RNG.normal(size=(1, 4, 4)) + 2,
        "x_train": RNG.normal(size=(30, 1, 4, 4)),
        "threshold": -5.0,
        "variances": np.ones(16),
    },
    "lattice.md": {
        "held_out": RNG.normal(size=(5, 8)),
        "x": RNG.normal(size=8),
        "detect": lambda batch: batch.argmax(1),
        "contrast": lambda chosen: np.eye(8)[chosen],
        "selective_test": selective_test,
    },
    "line-engine.md": {
        "network": CONV,
        "x": torch.from_numpy(RNG.normal(size=(1, 6, 6))),
        "d": torch.from_numpy(RNG.normal(size=(1, 6, 6))),
        "observed_mask": torch.zeros(1, 6, 6, dtype=torch.bool),
    },
    "localization.md": {"images": RNG.normal(size=(8, 1, 16, 16))},
    "datasets.md": {},
}


@pytest.mark.parametrize("page", OWN)
def test_examples_on_what_the_reader_has(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("measurements").mkdir()
    rows = "\n".join(f"{i % 7},{np.sqrt(i)},{('ok', 'ok', 'serviced', 'broken')[i % 4]}" for i in range(40, 80))
    Path("measurements/pumps.csv").write_text(f"flow,noise,state\n{rows}\n", encoding="utf-8")
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert blocks
    names = dict(OWN[page])
    for code, _ in blocks:
        # The paper's thousand epochs take a quarter of an hour.
        exec(compile(code.replace("seed=0, checkpoint", "seed=0, epochs=1, checkpoint"), page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_examples_work_as_written(page):
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    names = {}
    for code, expected in blocks:
        if "from sklearn" in code:
            pytest.importorskip("sklearn")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, page, "exec"), names)
        assert SECONDS.sub("", output.getvalue()) == SECONDS.sub("", expected)
