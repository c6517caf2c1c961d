"""A package that is not installed is named, with the command that installs it."""

import runpy
import sys
import tomllib
from pathlib import Path

import pytest

from sigad.errors import MissingPackageError
from sigad.optional import needs

ROOT = Path(__file__).parents[1]


class Absent:
    """A finder before all others, for which diffusers is not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "diffusers":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_diffusion_model_without_diffusers(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])
    with pytest.raises(MissingPackageError, match=r"diffusers is not installed: pip install 'sigad\[diffusion\]'"):
        runpy.run_path(str(ROOT / "src/sigad/models/diffusion/diffusers_parts.py"))


def test_other_failures_are_passed_on():
    with pytest.raises(ZeroDivisionError), needs("diffusion"):
        _ = 1 / 0


def test_every_extra_that_the_library_names_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        line.partition('needs("')[2].partition('"')[0]
        for path in (ROOT / "src").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip().startswith("with needs(")
    }
    assert named and named <= set(extras)
