"""Tables in parquet files that say what they hold and notice when they do not hold it any more.

A table is written with the facts that it was made from and a checksum of its columns; reading compares both, so that a
truncated, altered or foreign file is an error and never a number.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sigad.data.sealed import damaged
from sigad.errors import MissingDataError
from sigad.optional import needs

with needs("pipeline"):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

_KEY = b"sigad"


def write_parquet(path: str | Path, table: pa.Table, facts: Mapping[str, object]) -> None:
    """Write a table with facts, values of JSON, about it."""
    sealed = json.dumps({"facts": dict(facts), "checksum": _checksum(table)})
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: sealed}), path)


def read_parquet(path: str | Path, expected: Mapping[str, object] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """A table that :func:`write_parquet` wrote, and its facts.

    Raises
    ------
    MissingDataError
        if there is no such file.
    InvalidInputError
        if it cannot be read, was altered, or has other facts than the ``expected`` ones; names file and fact.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"there is no file {path}: run the pipeline, which makes it")
    try:
        table = pq.read_table(path, partitioning=None)
        content = json.loads((table.schema.metadata or {})[_KEY])
        facts, checksum = content["facts"], content["checksum"]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise damaged(path, "cannot be read as one that sigad wrote") from error
    if checksum != _checksum(table):
        raise damaged(path, "was altered after it was written")
    for name, value in (expected or {}).items():
        value = json.loads(json.dumps(value))
        if facts.get(name) != value:
            raise damaged(path, f"belongs to something else: its {name} is {facts.get(name)!r}, not {value!r}")
    return table, facts


def _checksum(table: pa.Table) -> str:
    """SHA-256 of names, types and values, however the table is cut into chunks and encoded."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = pc.cast(column, column.type.value_type)
        digest.update(f"{name}:{column.type}:{len(column)};".encode())
        digest.update(column.is_null().to_numpy().tobytes())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            digest.update("\0".join("" if v is None else v for v in column.to_pylist()).encode())
        else:
            digest.update(pc.fill_null(column, pa.scalar(0).cast(column.type)).to_numpy().tobytes())
    return digest.hexdigest()
