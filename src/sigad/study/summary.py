"""From rows to the numbers of the figures: rates, uniformity and cost of every grid point and method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sigad.inference.result import FAILED, TESTED
from sigad.study.chunks import chunk_range
from sigad.study.rates import rejection_rate, uniform_quantiles, uniformity
from sigad.study.rows import read_rows, trial_facts

QUARTILES = {"low": 0.25, "median": 0.5, "high": 0.75}


@dataclass(frozen=True)
class Trials:
    """The rows of an experiment in their files.

    ``settings`` of each grid point; ``parts`` the grid points of each method's parts; ``jobs`` with their ``files``;
    ``codes`` the digest of the code of each method.
    """

    experiment: str
    seed: int
    settings: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Mapping[str, Sequence[str]]]
    jobs: Sequence[Sequence[str]]
    files: Sequence[str | Path]
    codes: Mapping[str, str]

    def __iter__(self) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Grid point, method, rows; in the order of the grid, every file checked as it is read."""
        for method, parts in self.parts.items():
            frames: list[pd.DataFrame] = []
            for (name, part, chunk), path in zip(self.jobs, self.files, strict=True):
                if name == method:
                    points = list(parts[part])
                    facts = trial_facts(
                        self.experiment,
                        method,
                        self.seed,
                        self.codes[method],
                        {point: self.settings[point] for point in points},
                    )
                    frames.append(read_rows(path, points, chunk_range(chunk), facts))
            rows = pd.concat(frames, ignore_index=True)
            for point in self.settings:
                chosen = rows[rows["setting"] == point]
                if len(chosen):
                    yield point, method, chosen


def rates_table(trials: Trials, *, measure: str, alpha: float, level: float) -> pd.DataFrame:
    """Rejection rates: a row per grid point and method, with every setting, exact intervals and all counts; and
    ``mixed``, the share of the tested hypotheses that are false although Type I errors are what is counted: of normal
    instances of clusters, those with a neighbour of another one."""
    result = []
    for point, method, rows in trials:
        columns = (rows[name].to_numpy() for name in ("status", "null_true", "p_value", "rep"))
        rate = rejection_rate(*columns, measure=measure, alpha=alpha, level=level)
        seconds = rows["seconds"][rows["status"] == TESTED].mean()
        counted = measure == "type1" and rate.n_tested > 0
        more = {"mixed": 1 - rate.n_counted / rate.n_tested if counted else np.nan, "mean_seconds": seconds}
        named = {"method": method, "measure": measure}
        result.append({**trials.settings[point], **named, **rate._asdict(), **more})
    return pd.DataFrame(result)


def uniformity_tables(trials: Trials) -> tuple[pd.DataFrame, pd.DataFrame]:
    """P-values of true null hypotheses: quantiles beside those of U(0, 1), and tests of uniformity with the counts."""
    points, table = [], []
    for point, method, rows in trials:
        p_values = rows["p_value"][(rows["status"] == TESTED) & (rows["null_true"] == True)].to_numpy()  # noqa: E712
        named = {"setting": point, "method": method}
        counts = {"n_trials": rows["rep"].nunique(), "n_failed": int((rows["status"] == FAILED).sum())}
        table.append(named | counts | uniformity(p_values)._asdict())
        if len(p_values):
            points.append(pd.DataFrame(named | uniform_quantiles(p_values)))
    return pd.concat(points, ignore_index=True), pd.DataFrame(table)


def cost_table(trials: Trials, x: str) -> pd.DataFrame:
    """Linear pieces and seconds of a p-value over the setting ``x``: quartiles and mean of the tested trials."""
    parts: dict[tuple[Any, str], list[pd.DataFrame]] = {}
    for point, method, rows in trials:
        parts.setdefault((trials.settings[point][x], method), []).append(rows)
    result = []
    for (value, method), frames in parts.items():
        rows = pd.concat(frames, ignore_index=True)
        tested = rows[rows["status"] == TESTED]
        n_trials = len(rows[["setting", "rep"]].drop_duplicates())
        line = {x: value, "method": method, "n_trials": n_trials, "n_tested": len(tested)}
        for name in ("n_evaluations", "seconds"):
            some = tested[name].to_numpy()
            for label, quantile in QUARTILES.items():
                line[f"{name}_{label}"] = np.quantile(some, quantile) if len(some) else np.nan
            line[f"{name}_mean"] = some.mean() if len(some) else np.nan
        result.append(line)
    return pd.DataFrame(result)
