"""Diagnose the kNN tests on normal rows of the real tables; writes docs/figures/diagnose_tables.csv.

    python docs/figures/diagnose_tables.py results/quick/data

Of each prepared table in the folder one split into thirds is taken, as a trial of the kind knn_tabular takes it: the
covariance and the threshold (0.7 quantile) are of one third, training rows of another, and the normal rows of the last
third are diagnosed, against the k-th neighbour (k = 5) and against the mean of the 5 nearest.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from sigad import diagnose, knn_test
from sigad.data.tabular import Table
from sigad.errors import NumericalError
from sigad.study.kinds.knn_tabular import draw_trial

HERE, SEED, K = Path(__file__).parent, 20255, 5


def p_value(x: np.ndarray, **arguments) -> float:
    """The p-value of a row; NaN where nothing was detected, or where ties leave none."""
    try:
        return knn_test(x, k=K, **arguments).p_value
    except NumericalError:
        return np.nan


def main() -> None:
    frames = []
    for path in sorted(Path(sys.argv[1]).glob("*.parquet")):
        trial = draw_trial(
            Table.load(path), np.random.default_rng(SEED), n=100, candidates=(K,), quantile=0.7, anomalous=False
        )
        normals = np.concatenate([trial.x_test[None], trial.held_out])
        arguments = {"x_train": trial.x_train, "covariance": trial.covariance, "threshold": trial.threshold}
        for against in ("neighbour", "neighbourhood"):
            test = partial(p_value, against=against, **arguments)
            found = diagnose(normals, covariance=trial.covariance, test=test)
            print(f"{path.stem}, {against}: {found}", flush=True)
            frames.append(found.to_frame().assign(table=path.stem, against=against))
    frame = pd.concat(frames).set_index(["table", "against"])
    frame.to_csv(HERE / "diagnose_tables.csv", float_format="%.4g", lineterminator="\n")


if __name__ == "__main__":
    main()
