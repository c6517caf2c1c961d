"""Type I error and power on real tables: NormalModel against the neighbourhood and the k-th neighbour, and Bonferroni.

    python benchmarks/power_tables.py results/reference/knn_tables.csv [folder with further tables]

Each of 60 repetitions holds a fifth of the normal rows out, fits on the others (k = 5, or k from 1 to 10 as in the
paper's experiments; Yeo-Johnson, as many components as have normal tails) and tests at most 100 held-out normal and 100
anomalous rows, with the estimated covariance (exact) and with the estimate taken for the truth (plug-in). Tables that
ship with packages, and those named heart.csv, money_subset.csv, ... in the folder; config/datasets.yaml says what is
normal in each. Rows of one repetition share a model, and repetitions the rows: exact intervals describe this procedure
on this table.

``mixed``: where the normal rows are of several classes (wine, iris, student), the share of the tested ones with a
neighbour of another class than their own.
"""

import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from sigad.data.table import Table
from sigad.data.tabular import read_packaged, read_table
from sigad.inference.region import WHOLE_LINE
from sigad.inference.truncated import truncated_pvalue
from sigad.knn import NormalModel, knn_test_batch
from sigad.study.rates import clopper_pearson

PACKAGED = ("cancer", "wine", "iris", "fair")
FILES = {"heart": "heart", "money": "money_subset", "drink": "drink", "student": "student", "network": "network"}
REPETITIONS, ROWS, ALPHA = 60, 100, 0.05
KS = {"5": 5, "1-10": range(1, 11)}
AGAINST = ("neighbourhood", "neighbour")


class Classes(NamedTuple):
    """A table, and the class of each of its rows (numbers; all 0 where there is one)."""

    table: Table
    labels: np.ndarray


def tables(folder: Path | None) -> Iterator[Classes]:
    """The tables there are."""
    known = yaml.safe_load((Path(__file__).parents[1] / "config" / "datasets.yaml").read_text("utf-8"))["tabular"]
    for name in (*PACKAGED, *FILES):
        given = {key: known[name][key] for key in ("columns", "label", "normal") if key in known[name]}
        if name in PACKAGED:
            read = lambda normal: read_packaged(known[name]["module"], name=name, **given | {"normal": normal})  # noqa: B023, E731
        elif folder is not None and (folder / f"{FILES[name]}.csv").is_file():
            read = lambda normal: read_table(folder / f"{FILES[name]}.csv", name=name, **given | {"normal": normal})  # noqa: B023, E731
        else:
            continue
        table, labels = read(given["normal"]), None
        if isinstance(given["normal"], list) and name != "heart":  # heart: one class, which its copies code differently
            labels = sum(i * read(value).normal for i, value in enumerate(given["normal"]))
        yield Classes(table, np.zeros(len(table), int) if labels is None else labels)


def pvalues(model: NormalModel, rows: np.ndarray) -> dict[str, np.ndarray]:
    """P-values (B,), NaN where a row was not detected."""
    found = {}
    for against in AGAINST:
        result = replace(model, against=against).test(rows)
        plugged_in = knn_test_batch(
            model.features(rows),
            model.pool,
            k=model.candidates,
            threshold=model.threshold,
            covariance=model.covariance.matrix,
            against=against,
        )
        found |= {against: result.p_value, f"{against}_plugin": plugged_in.p_value}
    d, nu, t = model.covariance.dimension, model.covariance.degrees_of_freedom, result.statistic
    tested, naive = result.status == "tested", np.full(len(rows), np.nan)
    null = ("beta", d / 2, (nu - d + 1) / 2, np.hypot(t[tested], nu**0.5))
    naive[tested] = truncated_pvalue(t[tested], WHOLE_LINE, null=null)
    return found | {"naive": naive, "bonferroni_n": np.minimum(1, len(model.pool) * naive)}


def mixed(model: NormalModel, rows: np.ndarray, labels: np.ndarray, fitted: np.ndarray, seed: int) -> np.ndarray:
    """Whether any of the neighbours of each row, whose class comes first in ``labels``, is of another class.

    ``fitted`` are the classes of the rows that the model was fitted on with this seed.
    """
    pool = np.array_split(np.random.default_rng(seed).permutation(len(fitted)), 4)[3]
    distance = np.linalg.norm(model.features(rows)[:, None] - model.pool, axis=-1)
    nearest = np.argsort(distance, axis=1)[:, : model.candidates[-1]]
    return (fitted[pool][nearest] != labels[:, None]).any(axis=1)


def run(
    sets: Iterable[Classes], *, k: str = "5", measures: tuple[str, ...] = ("type1", "power"), **given
) -> Iterator[dict]:
    """Rows of the result: one table for each repetition; ``given``: arguments of NormalModel.fit."""
    rng, found, mixtures, components = np.random.default_rng(20251), {}, [], []
    inspected = dict.fromkeys(measures, 0)
    for repetition, (table, labels) in enumerate(sets):
        normal, anomalous = np.flatnonzero(table.normal), np.flatnonzero(~table.normal)
        held_out, fitted = np.split(rng.permutation(normal), [len(normal) // 5])
        model = NormalModel.fit(table.x[fitted], k=KS[k], seed=repetition, **given)
        components.append(model.pool.shape[1])
        chosen = {"type1": held_out[:ROWS], "power": rng.permutation(anomalous)[:ROWS]}
        for measure in measures:
            rows = chosen[measure]
            if not len(rows):
                continue
            inspected[measure] += len(rows)
            for method, p in pvalues(model, table.x[rows]).items():
                found.setdefault((measure, method), []).append(p)
            if measure == "type1" and len(np.unique(labels[normal])) > 1:
                tested = ~np.isnan(found[measure, "neighbourhood"][-1])
                mixtures.append(mixed(model, table.x[rows[tested]], labels[rows[tested]], labels[fitted], repetition))
    share = f"{np.concatenate(mixtures).mean():.3f}" if mixtures else ""
    for (measure, method), parts in found.items():
        p = np.concatenate(parts)
        detected, rejected = int((~np.isnan(p)).sum()), int((p <= ALPHA).sum())
        low, high = clopper_pearson(rejected, detected)
        yield {
            "k": k, "normal_rows": len(normal), "columns": table.x.shape[1],
            "components": f"{np.mean(components):.2f}", "measure": measure, "method": method,
            "inspected": inspected[measure], "detected": detected, "rejected": rejected,
            "rate": f"{rejected / max(detected, 1):.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}",
            "mixed": share if measure == "type1" else "",
        }  # fmt: skip


def write(path: str | Path, rows: list[dict]) -> None:
    """Write rows to a CSV file."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    rows = []
    for k in KS:
        for classes in tables(folder):
            rows += [{"table": classes.table.name} | row for row in run([classes] * REPETITIONS, k=k)]
            print(*rows[-12:], sep="\n", flush=True)
            write(sys.argv[1], rows)


if __name__ == "__main__":
    main()
