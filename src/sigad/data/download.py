"""Downloads of large files that go on where they were interrupted, and are checked before they count."""

import hashlib
import logging
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from sigad.errors import InvalidInputError, MissingDataError

logger = logging.getLogger(__name__)

_TIMEOUT = 60


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, path: str | Path, *, sha256: str | None = None, way_out: str = "try again") -> Path:
    """Download a file; does nothing if it is there.

    The file grows beside its destination as ``<name>.part`` and is moved there when it is complete and its digest is
    right. An interrupted download leaves the part, and the next call asks the server for the rest.

    Parameters
    ----------
    url : http(s):// or file://.
    path : the destination.
    sha256 : digest of the complete file; None logs the one that was found.
    way_out : what the error messages tell the reader to do.

    Raises
    ------
    MissingDataError
        when the address cannot be reached; what has been loaded so far is kept.
    InvalidInputError
        when the digest is not the expected one; the file is removed.
    """
    path = Path(path)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        try:
            _continue(url, partial)
        except OSError as error:  # URLError and timeouts are OSErrors
            raise MissingDataError(f"{url} could not be downloaded ({error}): {way_out}") from error
        _check(partial, sha256, way_out, remove=True)
        os.replace(partial, path)
    else:
        _check(path, sha256, way_out, remove=False)
    return path


def _continue(url: str, partial: Path) -> None:
    """Append what is missing of a file."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as source:
            goes_on = have > 0 and getattr(source, "status", None) == 206
            length = source.headers.get("Content-Length")
            with partial.open("ab" if goes_on else "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing
            return
        raise
    if length is not None and partial.stat().st_size != int(length) + (have if goes_on else 0):
        raise ConnectionError("the connection ended early; a new run goes on where it stopped")


def _check(path: Path, expected: str | None, way_out: str, *, remove: bool) -> None:
    found = sha256_of(path)
    if expected is None:
        logger.info("%s: sha256 %s (not pinned)", path.name, found)
    elif found != expected.lower():
        if remove:
            path.unlink()
        raise InvalidInputError(f"{path.name} has sha256 {found}, expected was {expected}: {way_out}")
