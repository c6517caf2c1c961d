"""Files that are whole or not there: downloads, and what replaces a file.

The one downloader: tables, archives of images and weights of networks all come through here. What was interrupted goes
on where it stopped, and a file counts once its digest is checked.
"""

import hashlib
import http.client
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from sigad.errors import InvalidInputError, MissingDataError, StorageError

logger = logging.getLogger(__name__)

_TIMEOUT = 60


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(path: str | Path) -> str:
    """Digest of what is at a path, whatever its time stamp says.

    For a file, the SHA-256; for a folder, that of the names and sizes of all files in it, for there may be gigabytes of
    images.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = "".join(f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    return sha256_of(path)


def refuse(wrong: Sequence[str], folder: str | Path, way_out: str = "") -> None:
    """Raise one InvalidInputError that names all that is wrong in a folder, and what to do; unless nothing is."""
    if wrong:
        title = f"{len(wrong)} of the files of {folder} are missing or cannot be used:"
        raise InvalidInputError("\n".join([title, *(f"  {line}" for line in wrong), *filter(None, [way_out])]))


def record(path: Path) -> None:
    """Keep, beside what was downloaded, what it is."""
    _record_of(path).write_text(content(path) + "\n", encoding="utf-8")


def put_there(path: str | Path | None) -> str | None:
    """Digest of what a person put at a path; None where there is nothing, or what was downloaded and never changed."""
    if path is None or not Path(path).exists():
        return None
    found, kept = content(path), _record_of(Path(path))
    return None if kept.is_file() and kept.read_text(encoding="utf-8").strip() == found else found


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".downloaded")


def write_whole(path: str | Path, content: bytes, *, way_out: str = "make room, or choose another folder") -> None:
    """Write a file whole or not at all; what it held before stays until then, and a failure leaves nothing behind.

    Raises StorageError, with the cause, when it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"{path} could not be written ({error.strerror or error}): {way_out}") from error


def download(url: str, path: str | Path, *, sha256: str | None = None, way_out: str = "try again") -> Path:
    """Download a file; does nothing if it is there.

    The file grows beside its destination as ``<name>.part`` and is moved there when it is complete and its digest is
    right. An interrupted download leaves the part, and the next call asks the server for the rest of the same version.
    The file has the permissions of any new file (the umask), so that a shared folder stays shared.

    Parameters
    ----------
    url : http(s):// or file://.
    path : the destination.
    sha256 : digest of the complete file in hexadecimal, or its first digits, as many as are known; None logs the one
        that was found.
    way_out : what the error messages tell the reader to do.

    Raises
    ------
    MissingDataError
        when the address cannot be reached; what has been loaded so far is kept.
    InvalidInputError
        when the digest is not the expected one; what was downloaded is removed, a file that was there before stays.
    """
    path = Path(path)
    if path.is_file():
        check_digest(path, sha256, way_out)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        _continue(url, partial, sha256)
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        raise MissingDataError(f"{url} could not be downloaded ({error}): {way_out}") from error
    _accept(partial, path, sha256, way_out)
    return path


def _accept(partial: Path, path: Path, sha256: str | None, way_out: str) -> None:
    """Move a downloaded file to its place if its digest is right; else remove it and raise InvalidInputError."""
    try:
        check_digest(partial, sha256, way_out, name=path.name)
    except InvalidInputError:
        partial.unlink()
        raise
    os.replace(partial, path)
    record(path)


def check_digest(path: Path, expected: str | None, way_out: str, *, name: str | None = None) -> None:
    """Compare the SHA-256 of a file with its known first digits; log it where none is known.

    Raises InvalidInputError, with both digests and the way out, when they differ.
    """
    found, name = sha256_of(path), name or path.name
    if expected is None:
        logger.info("%s: sha256 %s (not pinned)", name, found)
    elif not found.startswith(expected.lower()):
        raise InvalidInputError(f"{name} has sha256 {found}, expected was {expected}: {way_out}")


def _continue(url: str, partial: Path, sha256: str | None) -> None:
    """Append what is missing of a file.

    A part is continued only if it is one of the same file: beside it stands where it came from, with the validator of
    that version (ETag or date), which the server compares. Without one, only a known digest can tell.
    """
    origin = partial.with_name(partial.name + ".origin")
    have, validator = _part(url, partial, origin)
    headers = {"Range": f"bytes={have}-"} if have and (validator or sha256) else {}
    request = urllib.request.Request(url, headers=headers | ({"If-Range": validator} if headers and validator else {}))
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as source:
            goes_on = bool(headers) and getattr(source, "status", None) == HTTPStatus.PARTIAL_CONTENT
            length = source.headers.get("Content-Length")
            found = source.headers.get("ETag") or source.headers.get("Last-Modified") or ""
            origin.write_text(f"{url}\n{'' if found.startswith('W/') else found}\n", encoding="utf-8")
            with partial.open("ab" if goes_on else "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not headers:
            raise
        length = None  # nothing is missing
    if length is not None and partial.stat().st_size != int(length) + (have if goes_on else 0):
        raise ConnectionError("the connection ended early; a new run goes on where it stopped")
    origin.unlink(missing_ok=True)


def _part(url: str, partial: Path, origin: Path) -> tuple[int, str]:
    """Size of the part of this file that is there, and the validator of its version; 0 if it is of another one."""
    if not (partial.is_file() and origin.is_file()):
        return 0, ""
    source, validator = origin.read_text(encoding="utf-8").splitlines()
    return (partial.stat().st_size, validator) if source == url else (0, "")
