"""Coarser questions: p-values of the localization test over resolution and signal, on a trained diffusion model.

    python benchmarks/resolution.py 16 0 1000 results/reference/localization_resolution.csv
    python benchmarks/resolution.py 16 2 200 results/reference/localization_resolution.csv --resolutions 1 2 4 8

size of the images, signal, trials: images N(0, I), the signal added to a random square of side size // 3 of the test
image, one reference. Every trial is tested at all resolutions, by default 4 and 8, and is a row for each of them, with
the naive p-value beside. A run that was stopped goes on where it stopped. The threshold is the paper's, 0.8.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from scipy import special
from validity_localization import trained

from sigad.localization import localization_test
from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
from sigad.models.diffusion.unet import PiecewiseLinearUNet
from sigad.study.rates import clopper_pearson, uniformity

SEED = 20251
COLUMNS = ("size", "signal", "rep", "resolution", "status", "null_true", "pixels", "statistic", "p_value", "p_low",
           "p_high", "naive", "n_evaluations")  # fmt: skip


def draw(size: int, signal: float, rep: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    """Test image, reference and signal (1, size, size), and the noises of the reconstruction."""
    data, selection = (
        np.random.default_rng(s) for s in np.random.SeedSequence((SEED, size, int(10 * signal), rep)).spawn(2)
    )
    added = np.zeros((1, size, size))
    side = size // 3
    row, column = data.integers(0, size - side + 1, size=2)
    added[:, row : row + side, column : column + side] = signal
    x, x_ref = data.normal(size=(2, 1, size, size))
    return x + added, x_ref, added, draw_noises(selection, (1, size, size))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("size", type=int)
    parser.add_argument("signal", type=float)
    parser.add_argument("trials", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[4, 8])
    given = parser.parse_args()
    torch.set_num_threads(1)
    unet = PiecewiseLinearUNet.from_pretrained(trained(given.size)).eval()
    done = set()
    if given.path.exists():
        with given.path.open(newline="", encoding="utf-8") as file:
            done = {(r["size"], r["signal"], r["rep"], r["resolution"]) for r in csv.DictReader(file)}
    rows = []
    for rep in range(given.trials):
        x, x_ref, added, noises = draw(given.size, given.signal, rep)
        detector = Reconstruction(unet, noises)
        for resolution in given.resolutions:
            key = (given.size, f"{given.signal:g}", rep, resolution)
            if tuple(map(str, key)) in done:
                continue
            result = localization_test(detector, x, x_ref, threshold=0.8, covariance=1.0, resolution=resolution)
            row = dict(zip(COLUMNS, key, strict=False)) | {
                "status": result.status, "null_true": not added[0][result.tested].any(),
                "pixels": int(result.tested.sum()), "statistic": result.statistic, "p_value": result.p_value,
                "p_low": result.p_low, "p_high": result.p_high,
                "naive": float(2 * special.ndtr(-abs(result.statistic))), "n_evaluations": result.n_evaluations,
            }  # fmt: skip
            rows.append({name: f"{v:.9g}" if isinstance(v, float) else v for name, v in row.items()})
            begun = given.path.exists()
            with given.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if not begun:
                    writer.writeheader()
                writer.writerow(rows[-1])
    summary(given.path)


def summary(path: Path) -> None:
    """Rejection rates at 0.05 of every size, signal and resolution, and uniformity without a signal."""
    data = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    for size, signal, resolution in sorted(set(zip(data["size"], data["signal"], data["resolution"], strict=True))):
        some = (data["size"] == size) & (data["signal"] == signal) & (data["resolution"] == resolution)
        some &= (data["status"] == "tested") & (data["null_true"] == (signal == 0))
        p, naive = data["p_value"][some], data["naive"][some]
        low, high = clopper_pearson((p <= 0.05).sum(), len(p))
        line = f"{size} x {size}, signal {signal}, blocks of {resolution}: {len(p)} tested, {np.mean(p <= 0.05):.3f} "
        line += f"[{low:.3f}, {high:.3f}], naive {np.mean(naive <= 0.05):.3f}"
        print(line, uniformity(p) if signal == 0 else "")


if __name__ == "__main__":
    main()
