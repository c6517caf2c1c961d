"""The digest of the code that a result depends on."""

import shutil
import textwrap
from pathlib import Path

import sigad
from sigad.study import provenance


def digest_in(tmp_path, monkeypatch, edit=None):
    """The digest of the naive baseline and of w/o-pp in a copy of the package, after an edit."""
    package = tmp_path / "sigad"
    shutil.copytree(Path(sigad.__file__).parent, package, dirs_exist_ok=True)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    provenance._imports.cache_clear()
    if edit:
        edit(package)
    return [
        provenance.source_digest(package / "study" / "methods" / f"{name}.py")
        for name in ("naive", "wo_pp", "bonferroni")
    ]


def append(relative, text):
    def edit(package):
        path = package / relative
        path.write_text(path.read_text() + textwrap.dedent(text))

    return edit


def test_only_what_is_imported_counts(tmp_path, monkeypatch):
    before = digest_in(tmp_path, monkeypatch)
    naive, wo_pp, bonferroni = digest_in(tmp_path, monkeypatch, append("study/methods/naive.py", "\nX = 1\n"))
    assert naive != before[0]
    assert wo_pp == before[1]
    assert bonferroni != before[2]  # it imports naive


def test_comments_and_time_stamps_do_not_count(tmp_path, monkeypatch):
    before = digest_in(tmp_path, monkeypatch)
    assert digest_in(tmp_path, monkeypatch, append("inference/truncated.py", "\n# a remark\n")) == before


def test_indirect_imports_count(tmp_path, monkeypatch):
    before = digest_in(tmp_path, monkeypatch)
    after = digest_in(tmp_path, monkeypatch, append("inference/region.py", "\nX = 1\n"))
    assert all(a != b for a, b in zip(after, before, strict=True))
