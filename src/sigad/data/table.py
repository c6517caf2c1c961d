"""Tables of instances, and the split of their normal ones that keeps a test honest."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.data.parquet import numbers, read_parquet, write_parquet
from sigad.optional import needs

with needs("pipeline"):
    import pyarrow as pa

_LABEL = "is normal"  # the column of a saved table that holds Table.normal


@dataclass(frozen=True)
class Table:
    """A data set of N instances with d numeric columns.

    Attributes
    ----------
    name : what the data set is called.
    x : (N, d) float64, in the units of the source; no missing or infinite values.
    normal : (N,) bool, False for anomalies.
    columns : the d column names.
    notes : what was left out on reading and why, one sentence each.
    """

    name: str
    x: NDArray[np.float64]
    normal: NDArray[np.bool_]
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def save(self, path: str | Path) -> None:
        """Write the table as a parquet file with name and notes in its metadata (:mod:`sigad.data.sealed`)."""
        columns = dict(zip(self.columns, self.x.T, strict=True)) | {_LABEL: self.normal}
        write_parquet(path, pa.table(columns), {"content": "table", "name": self.name, "notes": list(self.notes)})

    @classmethod
    def load(cls, path: str | Path) -> "Table":
        """Read a table that :meth:`save` wrote; MissingDataError or InvalidInputError if it is not there or damaged."""
        table, facts = read_parquet(path, {"content": "table"})
        columns = [name for name in table.column_names if name != _LABEL]
        return cls(
            name=str(facts["name"]),
            x=np.column_stack([numbers(table[name]) for name in columns]),
            normal=numbers(table[_LABEL]),
            columns=tuple(columns),
            notes=tuple(map(str, facts["notes"])),
        )


class Split(NamedTuple):
    """Row indices of five parts of the normal instances, in random order: what the features are fitted on, what the
    threshold is estimated on, what the covariance is estimated on, the training instances, and those held out."""

    features: NDArray[np.int64]
    threshold: NDArray[np.int64]
    covariance: NDArray[np.int64]
    pool: NDArray[np.int64]
    testing: NDArray[np.int64]


def split(table: Table, rng: np.random.Generator) -> Split:
    """Shuffle the normal instances and cut them into fifths."""
    rows = rng.permutation(np.flatnonzero(table.normal))
    return Split(*np.array_split(rows, 5))
