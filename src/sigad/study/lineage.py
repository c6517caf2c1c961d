"""What a result is made from, all the way up to the data: its lineage.

Snakemake does not rebuild a missing intermediate file while what depends on it looks current. After a stage in the middle
has failed, a second run would therefore report success with an old figure. Hence every rule has the lineage of its inputs
among its params: whatever is changed upstream, all that follows from it is known to be outdated, and stays so until it is
made anew.
"""

import hashlib
import json
import os
from functools import cache
from pathlib import Path

from sigad.data.files import sha256_of


def lineage(*made_from: object) -> str:
    """Digest of settings, seeds, digests of code and of files; of anything that JSON can say, in any order of its keys."""
    text = json.dumps(made_from, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content(path: str | Path | None) -> str | None:
    """What is at a path, whatever its time stamp says.

    For a file, the SHA-256; for a folder, a digest of the names and sizes of all files in it, for there may be gigabytes
    of images; None where there is nothing (yet).
    """
    if path is None or not Path(path).exists():
        return None
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return lineage([[str(file.relative_to(path)), file.stat().st_size] for file in files])
    facts = os.stat(path)
    return _digest_of(str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@cache
def _digest_of(path: str, *facts: int) -> str:
    return sha256_of(path)
