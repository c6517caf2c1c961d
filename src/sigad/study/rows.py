"""Rows of trials in parquet files."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sigad.study.run import Rows

SCHEMA = pa.schema(
    {
        "rep": pa.int64(),
        "status": pa.string(),
        "reason": pa.string(),
        "null_true": pa.bool_(),
        "statistic": pa.float64(),
        "p_value": pa.float64(),
        "p_low": pa.float64(),
        "p_high": pa.float64(),
        "n_evaluations": pa.int64(),
        "seconds": pa.float64(),
    }
)


def write_rows(path: str | Path, rows: Rows) -> None:
    """Write the columns of :func:`sigad.study.run.run_trials`."""
    pq.write_table(pa.table({name: pa.array(rows[name], type=SCHEMA.field(name).type) for name in SCHEMA.names}), path)


def read_rows(
    paths: Iterable[str | Path], columns: Iterable[str] = ("status", "null_true", "p_value", "seconds")
) -> Rows:
    """Columns of the given files, one after the other, as arrays; a missing ``null_true`` is None."""
    table = pa.concat_tables([pq.read_table(path, columns=list(columns), schema=SCHEMA) for path in paths])
    return {
        name: np.asarray(table[name].to_pylist(), dtype=object) if name == "null_true" else table[name].to_numpy()
        for name in table.column_names
    }
