"""The kind ``knn_tabular``: k-nearest-neighbour anomaly detection on a real table (:mod:`sigad.study.knn_rows`)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sigad.data.sources import require_table
from sigad.data.table import Table
from sigad.knn.detection import blocks
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost
from sigad.study.knn_rows import KnnRows
from sigad.study.settings import setting


@dataclass(frozen=True)
class KnnTabular(KnnRows):
    """Rows of a table; every trial splits the normal ones anew and estimates on its own part of them."""

    dataset: str = setting("cancer", "name of the table in `tabular`, config/datasets.yaml", source="paper")

    def require(self, config: Mapping[str, Any]) -> None:
        require_table(self.dataset, config.get("tabular") or {}, config["data"])

    def inputs(self, experiment: str) -> dict[str, str]:
        return {"table": f"data/{self.dataset}.parquet"}

    def load(self, files: Mapping[str, Path]) -> dict[str, Any]:
        return {"table": Table.load(files["table"])}

    def rows(self, rng: np.random.Generator, given: Mapping[str, Any]) -> Table:
        return given["table"]

    def draw(self, streams: Sequence[Streams], *, table: Table) -> Iterator[Block]:
        """Problems of rows of a table."""
        for block in blocks(len(streams), self.n * table.x.shape[1]):
            trials = [self.trial(stream.data(), {"table": table}) for stream in streams[block]]
            yield from self.tested(streams[block], trials)

    def cost(self) -> Cost:
        # Drawing fits a transform of each column and computes distances of up to 1,000 rows.
        return self.cost_of(draw=3e-3)
