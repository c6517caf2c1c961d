"""The digest of the code that a result depends on."""

import shutil
import textwrap
from pathlib import Path

import pytest

import sigad
from sigad.study import provenance

ROOT = Path(__file__).parents[2]
PACKAGE = Path(sigad.__file__).parent


def digest_in(tmp_path, monkeypatch, edit=None):
    """The digest of the naive baseline and of w/o-pp in a copy of the package, after an edit."""
    package = tmp_path / "sigad"
    shutil.copytree(PACKAGE, package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", package)
    if edit:
        edit(package)
    provenance._read.cache_clear()
    return [
        provenance.source_digest(package / "study" / "methods" / f"{name}.py")
        for name in ("naive", "wo_pp", "bonferroni")
    ]


def append(relative, text):
    def edit(package):
        path = package / relative
        path.write_text(path.read_text() + textwrap.dedent(text))

    return edit


def trial_files(kind, method):
    """The modules that trials of a kind with a method depend on, relative to the package."""
    files = provenance.source_files(
        ROOT / "workflow" / "stages" / "test.py",
        PACKAGE / "study" / "kinds" / f"{kind}.py",
        PACKAGE / "study" / "methods" / f"{method}.py",
    )
    return {str(path.relative_to(PACKAGE)) for path in files if path.is_relative_to(PACKAGE)}


def test_only_what_is_imported_counts(tmp_path, monkeypatch):
    before = digest_in(tmp_path, monkeypatch)
    naive, wo_pp, bonferroni = digest_in(tmp_path, monkeypatch, append("study/methods/naive.py", "\nX = 1\n"))
    assert naive != before[0]
    assert wo_pp == before[1]
    assert bonferroni != before[2]  # it imports naive


def test_comments_docstrings_and_time_stamps_do_not_count(tmp_path, monkeypatch):
    before = digest_in(tmp_path, monkeypatch)
    assert digest_in(tmp_path, monkeypatch, append("inference/truncated.py", "\n# a remark\n")) == before

    def edit(package):
        path = package / "inference" / "truncated.py"
        text = path.read_text()
        changed = text.replace('    """Selective p-value', '    """The p-value')
        assert changed != text
        path.write_text('"""Another docstring."""\n' + changed[changed.index('"""', 3) + 3 :])

    assert digest_in(tmp_path, monkeypatch, edit) == before
    # Text that is used counts.
    assert digest_in(tmp_path, monkeypatch, append("inference/truncated.py", '\nX = """text"""\n')) != before


def test_imports_for_type_checkers_do_not_count(tmp_path, monkeypatch):
    before = digest_in(tmp_path, monkeypatch)
    text = "\nif TYPE_CHECKING:\n    from sigad.line import restrict\n"
    assert digest_in(tmp_path, monkeypatch, append("study/methods/naive.py", text)) == before


def test_indirect_imports_count(tmp_path, monkeypatch):
    before = digest_in(tmp_path, monkeypatch)
    after = digest_in(tmp_path, monkeypatch, append("inference/region.py", "\nX = 1\n"))
    assert all(a != b for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("kind", "foreign"),
    [
        ("knn_synthetic", ("line/", "models/", "localization/", "figures/", "data/tab", "data/images")),
        ("knn_tabular", ("line/", "models/", "localization/", "figures/", "data/images")),
        ("knn_images", ("localization/", "models/diffusion/", "figures/", "data/tab")),
        ("knn_embeddings", ("line/", "models/", "localization/", "figures/")),
        ("localization_synthetic", ("knn/", "figures/", "data/tab", "data/images", "models/features")),
    ],
)
@pytest.mark.parametrize("method", ["naive", "proposed"])
def test_trials_depend_on_the_rooms_that_they_use(kind, foreign, method):
    files = trial_files(kind, method)
    assert not [file for file in sorted(files) if file.startswith(foreign)]
    assert not files & {"study/design.py", "study/rates.py", "study/summary.py"}
