"""Power of the kNN tests, and their Type I error, over the signal: the paper's, the neighbourhood test, and others.

    python benchmarks/power_knn.py results/reference/knn_power.csv

n = 100, d = 10, k from 1 to 10, threshold at the 0.9 quantile; 20,000 trials without a signal, of which a tenth are
detected, and 2,000 for each signal. docs/figures/power.py draws it.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from sigad.seeds import trial_streams
from sigad.study import methods
from sigad.study.kinds.knn_synthetic import KnnSynthetic
from sigad.study.rates import rejection_rate
from sigad.study.run import apply

SEED = 20251
METHODS = (
    "neighbourhood", "proposed", "proposed_any_k", "naive", "bonferroni_n", "hotelling_t2", "unselective_oracle",
)  # fmt: skip


def main() -> None:
    path, rows = Path(sys.argv[1]), []
    scores = KnnSynthetic().calibrate(SEED, 10_000)
    for signal in range(7):
        setting, trials = KnnSynthetic(signal=signal), 2_000 if signal else 20_000
        columns = {name: {column: [] for column in ("status", "null_true", "p_value")} for name in METHODS}
        for streams, problems in setting.draw(
            trial_streams(SEED, "power_knn", f"signal={signal}", range(trials)), scores=scores
        ):
            for name in METHODS:
                result = apply(methods.load(name)(), problems, streams)
                for column, parts in columns[name].items():
                    parts.append(result[column])
        for name in METHODS:
            given = [np.concatenate(parts) for parts in columns[name].values()]
            rate = rejection_rate(*given, measure="power" if signal else "type1", alpha=0.05)
            rows.append({"signal": signal, "method": name} | rate._asdict())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
