"""P-values of trials whose null hypothesis is true, row by row into a CSV file, and whether they are uniform."""

import csv
from pathlib import Path

import numpy as np

from sigad.inference.result import NOT_SELECTED
from sigad.seeds import Streams
from sigad.study.kinds import Kind
from sigad.study.methods.naive import Naive
from sigad.study.methods.proposed import Proposed
from sigad.study.rates import rejection_rate, uniformity
from sigad.study.run import run_trials

SEED = 20251
COLUMNS = ("rep", "status", "statistic", "p_value", "p_low", "p_high", "n_evaluations", "naive")


def run(path: Path, trials: int, setting: Kind, stream: tuple[str, str], *, every: bool, **given) -> None:
    """Test so many trials of a setting with `proposed` and `naive`, then print their rates and uniformity.

    Rows are appended as they come, and a run that was stopped goes on behind the last one. `stream`: experiment and
    grid point, of which the seeds depend. `every`: write a row for each trial, not only for those with a detection (and
    the last one, which tells how many there were). `given`: what its kind's `load` returns.
    """
    begun = path.exists()
    done = int(path.read_text(encoding="utf-8").splitlines()[-1].split(",")[0]) + 1 if begun else 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not begun:
            writer.writerow(COLUMNS)
        for rep in range(done, trials):
            streams = [Streams(SEED, *stream, rep)]
            rows = run_trials(setting, Proposed(), streams, **given)
            if not every and rows["status"][0] == NOT_SELECTED and rep < trials - 1:
                continue
            naive = run_trials(setting, Naive(), streams, **given)
            values = [rep] + [rows[name][0] for name in COLUMNS[1:-1]] + [naive["p_value"][0]]
            writer.writerow([f"{v:.9g}" if isinstance(v, float) else v for v in values])
            file.flush()
    data = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    tested, true = data["status"] == "tested", np.ones(len(data), dtype=bool)
    for column in ("p_value", "naive"):
        rate = rejection_rate(data["status"], true, data[column], measure="type1", alpha=0.05)
        print(f"{path.stem} {column}: {rate} {uniformity(data[column][tested])}")
