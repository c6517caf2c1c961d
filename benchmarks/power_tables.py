"""Type I error and power on real tables: NormalModel against the neighbourhood and the k-th neighbour, and Bonferroni.

    python benchmarks/power_tables.py results/reference/knn_tables.csv [folder with further tables]

Each of 60 repetitions holds a fifth of the normal rows out, fits on the others (k = 5, Yeo-Johnson, as many components
as have normal tails) and tests at most 100 held-out normal and 100 anomalous rows. Tables that ship with packages, and
those named heart.csv, money_subset.csv, ... in the folder; config/datasets.yaml says what is normal in each. Rows of
one repetition share a model, and repetitions the rows: exact intervals describe this procedure on this table.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from sigad.data.tabular import Table, read_packaged, read_table
from sigad.inference.region import WHOLE_LINE
from sigad.inference.truncated import truncated_pvalue
from sigad.knn import NormalModel
from sigad.study.rates import clopper_pearson

PACKAGED = ("cancer", "wine", "iris", "fair")
FILES = {"heart": "heart", "money": "money_subset", "drink": "drink", "student": "student", "network": "network"}
REPETITIONS, ROWS = 60, 100


def tables(folder: Path | None):
    """The tables there are."""
    known = yaml.safe_load((Path(__file__).parents[1] / "config" / "datasets.yaml").read_text("utf-8"))["tabular"]
    for name in (*PACKAGED, *FILES):
        given = {key: known[name][key] for key in ("columns", "label", "normal") if key in known[name]}
        if name in PACKAGED:
            yield read_packaged(known[name]["module"], name=name, **given)
        elif folder is not None and (folder / f"{FILES[name]}.csv").is_file():
            yield read_table(folder / f"{FILES[name]}.csv", name=name, **given)


def pvalues(model: NormalModel, rows: np.ndarray) -> dict[str, np.ndarray]:
    """P-values of the detected rows."""
    found = {}
    for against in ("neighbourhood", "neighbour"):
        result = replace(model, against=against).test(rows)
        tested = result.status == "tested"
        found[against] = result.p_value[tested]
    d, nu, t = model.covariance.dimension, model.covariance.degrees_of_freedom, result.statistic[tested]
    naive = truncated_pvalue(t, WHOLE_LINE, null=("beta", d / 2, (nu - d + 1) / 2, np.hypot(t, nu**0.5)))
    return found | {"naive": naive, "bonferroni_n": np.minimum(1, len(model.pool) * naive)}


def run(table: Table):
    """Rows of the result."""
    rng, normal, anomalous = np.random.default_rng(20251), *map(np.flatnonzero, (table.normal, ~table.normal))
    found, components, inspected = {}, [], {"type1": 0, "power": 0}
    for repetition in range(REPETITIONS):
        held_out, fitted = np.split(rng.permutation(normal), [len(normal) // 5])
        model = NormalModel.fit(table.x[fitted], k=5, seed=repetition)
        components.append(model.pool.shape[1])
        for measure, rows in (("type1", held_out[:ROWS]), ("power", rng.permutation(anomalous)[:ROWS])):
            inspected[measure] += len(rows)
            for method, p in pvalues(model, table.x[rows]).items():
                found.setdefault((measure, method), []).append(p)
    for (measure, method), parts in found.items():
        p = np.concatenate(parts)
        low, high = clopper_pearson((p <= 0.05).sum(), len(p))
        yield {
            "table": table.name, "normal_rows": len(normal), "columns": table.x.shape[1],
            "components": f"{np.mean(components):.2f}", "measure": measure, "method": method,
            "inspected": inspected[measure], "detected": len(p), "rejected": int((p <= 0.05).sum()),
            "rate": f"{np.mean(p <= 0.05):.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}",
        }  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    rows = []
    for table in tables(folder):
        rows += list(run(table))
        print(*rows[-8:], sep="\n", flush=True)
        with Path(sys.argv[1]).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
