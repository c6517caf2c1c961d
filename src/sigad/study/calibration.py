"""Anomaly scores of held-out normal instances: made once for an experiment, kept, and read by its trials."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sigad.data.parquet import column, numbers, read_parquet, write_parquet
from sigad.errors import InvalidInputError
from sigad.study.kinds import Kind


def calibrate(settings: Mapping[str, Kind], seed: int, size: int) -> dict[str, NDArray[np.float64]]:
    """The scores (size,) of every distribution that occurs in the settings, by its name."""
    distinct = {setting.distribution: setting for setting in settings.values()}
    return {name: setting.calibrate(seed, size) for name, setting in distinct.items()}


def write_scores(path: str | Path, scores: Mapping[str, NDArray[np.float64]], facts: Mapping[str, object]) -> None:
    """Write the scores of all distributions; ``facts`` say what they were made from."""
    names = np.repeat(list(scores), [len(values) for values in scores.values()])
    values = np.concatenate(list(scores.values()))
    columns = [column(names, pa.string()).dictionary_encode(), column(values, pa.float64())]
    table = pa.table(columns, ["distribution", "score"])
    write_parquet(path, table, {"content": "calibration", **facts})


def read_scores(path: str | Path, distribution: str) -> NDArray[np.float64]:
    """The scores of one distribution; raises InvalidInputError if they are not there."""
    table, _ = read_parquet(path, {"content": "calibration"})
    chosen = numbers(table["score"])[np.asarray(table["distribution"].to_pylist(), object) == distribution]
    if not len(chosen):
        raise InvalidInputError(f"{path} holds no scores of {distribution}: remove it and run again")
    return chosen
