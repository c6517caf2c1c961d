"""Examples of the README and of pages on detectors and p-values, run as written: output and all, but for seconds."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/any-detector.md", "docs/real-images.md", "docs/which-p-value.md"]
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", re.DOTALL)
SECONDS = re.compile(r"[\d.e-]+ s$", re.MULTILINE)


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
