"""Coarser questions: p-values of the localization test over resolution and signal, on a trained diffusion model.

    python benchmarks/resolution.py 16 0 1000 results/reference/localization_resolution.csv --spacing 0.2
    python benchmarks/resolution.py 16 1 200 results/reference/localization_resolution.csv --resolutions 1
    python benchmarks/resolution.py 16 1 200 results/reference/localization_resolution.csv --spacing 0.2
    python benchmarks/resolution.py 16 2 100 results/reference/localization_resolution.csv --resolutions 1
    python benchmarks/resolution.py 16 2 100 results/reference/localization_resolution.csv --spacing 0.2

size of the images, signal, trials: images N(0, I), the signal added to a random square of side size // 3 of the test
image, one reference, the paper's threshold 0.8. Every trial is tested at all resolutions, by default 4 and 8, and is a
row for each of them with the naive p-value beside. Tested by the exact engine; or, with a spacing, by the lattice
engine, whose p-values are made uniform by a share of the observed point's own weight. A run that was stopped goes on.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from scipy import special
from validity_localization import trained

from sigad.inference.lattice import lattice
from sigad.inference.result import NOT_SELECTED, TESTED
from sigad.localization import Detector, MaskHypothesis, contrast, localization_test
from sigad.localization.coarse import parse_resolution
from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
from sigad.models.diffusion.unet import UNet
from sigad.models.saved import restore
from sigad.study.rates import clopper_pearson, uniformity

SEED = 20251
COLUMNS = ("size", "signal", "rep", "resolution", "spacing", "status", "null_true", "pixels", "statistic", "p_value",
           "p_low", "p_high", "naive", "n_evaluations")  # fmt: skip


def draw(size: int, signal: float, rep: int) -> tuple:
    """Test image, reference and signal (1, size, size), the noises of the reconstruction, and a generator."""
    streams = np.random.SeedSequence((SEED, size, int(10 * signal), rep)).spawn(3)
    data, selection, share = map(np.random.default_rng, streams)
    added = np.zeros((1, size, size))
    side = size // 3
    row, column = data.integers(0, size - side + 1, size=2)
    added[:, row : row + side, column : column + side] = signal
    x, x_ref = data.normal(size=(2, 1, size, size))
    return x + added, x_ref, added, draw_noises(selection, (1, size, size)), share


def test(network, x, x_ref, resolution: int, spacing: float, share: np.random.Generator) -> tuple[np.ndarray, dict]:
    """The tested pixels (size, size), and the columns of the test.

    The lattice engine needs no more of a detector than that it is deterministic: single precision will do.
    """
    if not spacing:
        result = localization_test(network, x, x_ref, threshold=0.8, covariance=1.0, resolution=resolution)
        tested, status, statistic = result.tested, result.status, result.statistic
    else:
        coarse, detector = parse_resolution(resolution), Detector(network, threshold=0.8).in_single_precision()
        found = detector.detect(x)
        tested, status, statistic, result = coarse.tested(found.mask[None])[0], NOT_SELECTED, np.nan, None
        if tested.any():
            line = contrast(tested, x, x_ref, 1.0)
            status, statistic = TESTED, line.statistic
            result = lattice(
                MaskHypothesis(detector, x, found.mask, line, coarse=coarse), spacing=spacing, rng=share, batch=16
            )
    names = ("p_value", "p_low", "p_high", "n_evaluations")
    row = {name: getattr(result, name) if status == TESTED else np.nan for name in names}
    naive = float(2 * special.ndtr(-abs(statistic)))
    return tested, row | {"status": status, "pixels": int(tested.sum()), "statistic": statistic, "naive": naive}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("size", type=int)
    parser.add_argument("signal", type=float)
    parser.add_argument("trials", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--spacing", type=float, default=0.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    unet = restore(UNet, trained(given.size))
    done = set()
    if given.path.exists():
        with given.path.open(newline="", encoding="utf-8") as file:
            done = {tuple(r[name] for name in COLUMNS[:5]) for r in csv.DictReader(file)}
    rows = []
    for rep in range(given.trials):
        x, x_ref, added, noises, share = draw(given.size, given.signal, rep)
        detector = Reconstruction(unet, noises)
        for resolution in given.resolutions:
            key = (given.size, f"{given.signal:g}", rep, resolution, f"{given.spacing:g}")
            if tuple(map(str, key)) in done:
                continue
            tested, row = test(detector, x, x_ref, resolution, given.spacing, share)
            row = dict(zip(COLUMNS, key, strict=False)) | {"null_true": not added[0][tested].any()} | row
            rows.append({name: f"{v:.9g}" if isinstance(v, float) else v for name, v in row.items()})
            begun = given.path.exists()
            with given.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if not begun:
                    writer.writeheader()
                writer.writerow(rows[-1])
    summary(given.path)


def summary(path: Path) -> None:
    """Rejection rates at 0.05 of every size, signal, resolution and spacing, and uniformity without a signal."""
    data = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    keys = ("size", "signal", "resolution", "spacing")
    for size, signal, resolution, spacing in sorted(set(zip(*(data[key] for key in keys), strict=True))):
        some = (data["size"] == size) & (data["signal"] == signal) & (data["resolution"] == resolution)
        some &= (data["spacing"] == spacing) & (data["status"] == "tested") & (data["null_true"] == (signal == 0))
        p, naive = data["p_value"][some], data["naive"][some]
        low, high = clopper_pearson((p <= 0.05).sum(), len(p))
        engine = f"spacing {spacing}" if spacing else "exact engine"
        line = f"{size} x {size}, signal {signal}, blocks of {resolution}, {engine}: {len(p)} tested, "
        line += f"{np.mean(p <= 0.05):.3f} [{low:.3f}, {high:.3f}], naive {np.mean(naive <= 0.05):.3f}"
        print(line, uniformity(p) if signal == 0 else "")


if __name__ == "__main__":
    main()
