"""Tables in parquet files that say what they hold and notice when they do not hold it any more.

A table is written with the facts that it was made from and a checksum of its columns; reading compares both, so that a
truncated, altered or foreign file is an error and never a number.

Numbers go into columns and out of them by their buffers: pyarrow's own conversions import pandas, for which most jobs
would wait longer than for anything else that they do before their first trial.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        with pq.ParquetFile(path) as file:  # read_table would look for a data set of many files, and import pandas too
            table = file.read()
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


def column(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """A column of text, of bool (None where it is missing), or of numbers without gaps."""
    if pa.types.is_string(kind):
        words = [str(word).encode() for word in values]
        ends = np.cumsum([0, *map(len, words)], dtype=np.int32)
        return pa.Array.from_buffers(kind, len(words), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(words))])
    if pa.types.is_boolean(kind):
        given = list(values)
        masks = ([value is not None for value in given], [bool(value) for value in given])
        known, true = (pa.py_buffer(np.packbits(np.array(mask, bool), bitorder="little")) for mask in masks)
        return pa.Array.from_buffers(kind, len(given), [known, true])
    plain = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(plain), [None, pa.py_buffer(plain)])


def numbers(column: pa.ChunkedArray) -> NDArray:
    """The values of a column of numbers or bool, 0 or False where one is missing."""
    none = np.zeros(0, column.type.to_pandas_dtype())
    return np.concatenate(
        [none, *(np.where(_known(chunk), _raw(chunk), none.dtype.type(0)) for chunk in column.chunks)]
    )


def _raw(chunk: pa.Array) -> NDArray:
    """What a chunk holds, whatever stands where a value is missing."""
    data, kind = chunk.buffers()[1], chunk.type.to_pandas_dtype()
    return _bits(chunk, data) if kind is np.bool_ else np.frombuffer(data, kind)[chunk.offset :][: len(chunk)]


def _known(chunk: pa.Array) -> NDArray[np.bool_]:
    """Which values of a chunk are not missing."""
    known = chunk.buffers()[0]
    return np.ones(len(chunk), bool) if known is None else _bits(chunk, known)


def _bits(chunk: pa.Array, buffer: pa.Buffer) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), bitorder="little")
    return bits[chunk.offset :][: len(chunk)].astype(bool)


def _checksum(table: pa.Table) -> str:
    """SHA-256 of names, types and values, however the table is cut into chunks and encoded."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = pc.cast(column, column.type.value_type)
        digest.update(f"{name}:{column.type}:{len(column)};".encode())
        digest.update(b"".join((~_known(chunk)).tobytes() for chunk in column.chunks))
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            digest.update("\0".join("" if v is None else v for v in column.to_pylist()).encode())
        else:
            digest.update(numbers(column).tobytes())
    return digest.hexdigest()
