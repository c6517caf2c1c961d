"""Rows of trials in parquet files, which say what they were made from and are checked against it when they are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sigad.data.parquet import column, read_parquet, write_parquet
from sigad.data.sealed import damaged
from sigad.study.run import Rows

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = pa.schema(
    {
        "setting": pa.dictionary(pa.int32(), pa.string()),
        "rep": pa.int64(),
        "hypothesis": pa.int32(),
        "status": pa.dictionary(pa.int32(), pa.string()),
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


def trial_facts(
    experiment: str, method: str, seed: int, code: str, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What rows of trials are made from: written with them, and compared when they are read."""
    return {"experiment": experiment, "method": method, "seed": seed, "code": code, "settings": dict(settings)}


def write_rows(path: str | Path, rows: Mapping[str, Rows], facts: Mapping[str, Any]) -> None:
    """Write the rows of several grid points (:func:`sigad.study.run.run_experiment`) and the facts of their making."""
    tables = []
    for point, columns in rows.items():
        size = len(columns["rep"])
        named = {"setting": np.full(size, point, dtype=object), **columns}
        arrays = [
            column(named[field.name], pa.string()).dictionary_encode()
            if pa.types.is_dictionary(field.type)
            else column(named[field.name], field.type)
            for field in COLUMNS
        ]
        tables.append(pa.table(arrays, schema=COLUMNS))
    write_parquet(path, pa.concat_tables(tables).unify_dictionaries(), {"content": "trials", **facts})


def read_rows(path: str | Path, points: Sequence[str], repetitions: range, facts: Mapping[str, Any]) -> "pd.DataFrame":
    """The rows of a file; a missing ``null_true`` is None.

    Parameters
    ----------
    path : the file.
    points, repetitions : the grid points and repetitions that it has to hold, all of them and no others.
    facts : what it has to be made from (experiment, method, seed, settings, code).

    Raises
    ------
    InvalidInputError
        if the file was altered, or belongs to something else; names it and says what to do.
    """
    table, _ = read_parquet(path, {"content": "trials", **facts})
    if table.schema.remove_metadata() != COLUMNS:
        raise damaged(path, "has other columns than rows of trials")
    frame = table.to_pandas()
    found = frame[["setting", "rep"]].drop_duplicates()
    for point in points:
        if found["rep"][found["setting"] == point].tolist() != list(repetitions):
            raise damaged(path, f"does not hold the repetitions {repetitions.start}-{repetitions.stop - 1} of {point}")
    if set(found["setting"]) != set(points):
        raise damaged(path, "holds rows of other grid points")
    return frame
