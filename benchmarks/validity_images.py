"""P-values of true null hypotheses: the deep kNN test on patches drawn from an estimated noise model.

    python benchmarks/validity_images.py brick 12000 results/reference/knn_images_brick.csv

trains the small network on textures (half a minute, kept in benchmarks/output). In every trial all patches are drawn
from the normal distribution that was estimated on the real ones, so that the null hypothesis holds exactly; the
threshold detects about one in ten, and a row is written for each of these. Rows are appended as they come, and a run
that was stopped goes on where it stopped.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch

from sigad.data.images import texture_patches
from sigad.experiments import run_trials
from sigad.features import load_features, restore_features, save_features
from sigad.knn.network import NetworkFeatures
from sigad.rates import rejection_rate, uniformity
from sigad.result import NOT_SELECTED
from sigad.seeds import Streams

SEED = 20251
NETWORK = {"train": "textures", "layer": "12"}
SETTING = {
    "instance": "gaussian",
    "n": 100,
    "k": "1-10",
    "quantile": 0.9,
    "metric": "l2",
    "covariance": "shrunk",
    "features": "small_cnn",
}
COLUMNS = ("rep", "status", "statistic", "p_value", "p_low", "p_high", "n_pieces", "naive")


def network() -> NetworkFeatures:
    path = Path(__file__).parent / "output" / "small_cnn.pt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        save_features(NETWORK, load_features(NETWORK, "data", seed=SEED), path)
    return NetworkFeatures(restore_features(path))


def main() -> None:
    torch.set_num_threads(1)
    name, trials, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    given = {"images": texture_patches(name, 16), "features": network()}
    setting = SETTING | {"dataset": name}
    begun = path.exists()
    done = int(path.read_text(encoding="utf-8").splitlines()[-1].split(",")[0]) + 1 if begun else 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not begun:
            writer.writerow(COLUMNS)
        for rep in range(done, trials):
            streams = [Streams(SEED, "validity_images", f"dataset={name}", rep)]
            rows = run_trials("knn_images", "proposed", setting, streams, **given)
            if rows["status"][0] == NOT_SELECTED and rep < trials - 1:
                continue
            naive = run_trials("knn_images", "naive", setting, streams, **given)
            values = [rep] + [rows[name][0] for name in COLUMNS[1:-1]] + [naive["p_value"][0]]
            writer.writerow([f"{v:.9g}" if isinstance(v, float) else v for v in values])
            file.flush()
    data = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    tested, true = data["status"] == "tested", np.ones(len(data), dtype=bool)
    for column in ("p_value", "naive"):
        rate = rejection_rate(data["status"], true, data[column], measure="type1", alpha=0.05)
        print(f"{name} {column}: {rate} {uniformity(data[column][tested])}")


if __name__ == "__main__":
    main()
