"""P-values of true null hypotheses: the localization test on trained diffusion models.

    python benchmarks/validity_localization.py 8 1700 results/reference/localization_8x8.csv
    python benchmarks/validity_localization.py 16 1000 results/reference/localization_16x16.csv

trains the noise predictor (a minute, kept in benchmarks/output) and writes a row per trial: images N(0, I), no signal.
Rows are appended as they come, and a run that was stopped goes on where it stopped.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch

from sigad.diffusion.training import train_on_noise
from sigad.experiments import run_trials
from sigad.rates import rejection_rate, uniformity
from sigad.seeds import Streams

SEED = 20251
EPOCHS = {8: 40, 16: 20}
SETTING = {
    "covariance": "identity",
    "signal": 0,
    "threshold": 0.8,
    "filter_size": 3,
    "noise": "normal",
    "distance": 0,
    "variance_images": 0,
    "activation": "relu",
    "knots": 8,
    "replica": 0,
    "permutations": 1000,
}
COLUMNS = ("rep", "status", "statistic", "p_value", "p_low", "p_high", "n_pieces", "naive")


def trained(size: int) -> Path:
    """Folder of the network."""
    folder = Path(__file__).parent / "output" / f"unet_{size}"
    if not (folder / "config.json").exists():
        unet, _ = train_on_noise(
            size, activation="relu", replica=0, seed=SEED, images=1000, epochs=EPOCHS[size], checkpoint=None
        )
        unet.save_pretrained(folder)
    return folder


def main() -> None:
    torch.set_num_threads(1)
    size, trials, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    model, setting = trained(size), SETTING | {"size": size}
    done = sum(1 for _ in path.open()) - 1 if path.exists() else -1
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if done < 0:
            writer.writerow(COLUMNS)
        for rep in range(max(done, 0), trials):
            streams = [Streams(SEED, "validity_localization", f"size={size}", rep)]
            rows = run_trials("localization_synthetic", "proposed", setting, streams, model=model)
            naive = run_trials("localization_synthetic", "naive", setting, streams, model=model)
            values = [rows[name][0] for name in COLUMNS[:-1]] + [naive["p_value"][0]]
            writer.writerow([f"{v:.9g}" if isinstance(v, float) else v for v in values])
            file.flush()
    data = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    tested, true = data["status"] == "tested", np.ones(len(data), dtype=bool)
    for name in ("p_value", "naive"):
        rate = rejection_rate(data["status"], true, data[name], measure="type1", alpha=0.05)
        print(f"{size}x{size} {name}: {rate} {uniformity(data[name][tested])}")


if __name__ == "__main__":
    main()
