"""Folders that notice when a file in them is not what was written: truncated, altered or foreign, it is an error and
never a number. :mod:`sigad.data.parquet` does the same for tables."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sigad.errors import InvalidInputError

_SEAL = "checksums.json"


def sha256(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_folder(folder: str | Path) -> None:
    """Note the checksums of all files of a folder in it."""
    folder = Path(folder)
    sums = {str(path.relative_to(folder)): sha256(path) for path in _files(folder)}
    (folder / _SEAL).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def check_folder(folder: str | Path) -> None:
    """Raise InvalidInputError unless the files of a folder are those that :func:`seal_folder` saw."""
    folder = Path(folder)
    try:
        sums = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(folder, "has no readable list of checksums") from error
    there = {str(path.relative_to(folder)): path for path in _files(folder)}
    for name, expected in sums.items():
        if name not in there:
            raise damaged(folder / name, "is missing")
        if sha256(there[name]) != expected:
            raise damaged(folder / name, "was altered after it was written")


def damaged(path: str | Path, what: str) -> InvalidInputError:
    """The error for a file that is not what it should be."""
    return InvalidInputError(f"{path} {what}: remove it and run again, which makes it anew")


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL)
