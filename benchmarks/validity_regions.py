"""Joint validity of the tests of all regions of an image: normal images, every connected component tested.

    python benchmarks/validity_regions.py 2500 results/reference/regions_8x8.csv

writes a row per region of images N(0, I), 8x8, no signal: of the autoencoder below with the paper's filter. Rows are
appended as they come, and a run that was stopped goes on behind the last image. Then it prints, over all images, how
often Holm's and Benjamini & Yekutieli's procedures reject anything (every rejection is false: both must be at most the
level), and the uniformity of one p-value per image, the first region's in the order of the pixels.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sigad import localization_test
from sigad.study.rates import clopper_pearson, uniformity

SEED, THRESHOLD = 20252, 0.5
COLUMNS = ("image", "region", "first", "pixels", "statistic", "p_value", "p_low", "p_high", "holm", "by")


def autoencoder() -> nn.Module:
    """A small one with random weights: an untrained detector marks as data-dependently as a trained one."""
    torch.manual_seed(SEED)
    layers = (nn.Conv2d(1, 6, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2))
    layers += (nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(6, 1, 2, stride=2))
    return nn.Sequential(*layers).double().eval()


def main() -> None:
    torch.set_num_threads(1)
    images, path = int(sys.argv[1]), Path(sys.argv[2])
    begun = path.exists()
    done = int(path.read_text(encoding="utf-8").splitlines()[-1].split(",")[0]) + 1 if begun else 0
    detector = autoencoder()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not begun:
            writer.writerow(COLUMNS)
        for image in range(done, images):
            x, x_ref = np.random.default_rng([SEED, image]).standard_normal((2, 1, 8, 8))
            result = localization_test(
                detector, x, x_ref, threshold=THRESHOLD, covariance=1.0, tolerance=1e-3, per_region=True
            )
            first = min(
                range(len(result)), key=lambda i: np.flatnonzero(result.regions[i].selection.mask)[0], default=0
            )
            rows = []
            for i, region in enumerate(result.regions):
                where = (image, i + 1, int(i == first), region.selection.mask.sum())
                bounds = (region.statistic, region.p_value, region.p_low, region.p_high)
                rows.append((*where, *bounds, result.holm[i], result.by[i]))
            for row in rows or [(image, 0, 0, 0, *[np.nan] * 6)]:
                writer.writerow([f"{v:.9g}" if isinstance(v, float) else v for v in row])
            file.flush()
    rows = np.genfromtxt(path, delimiter=",", names=True)
    count, tested = len(np.unique(rows["image"])), rows[rows["region"] > 0]
    marked = len(np.unique(tested["image"]))
    print(f"{count} images, {marked} with regions, {len(tested)} regions")
    for name in ("holm", "by"):
        for level in (0.05, 0.2):
            rejected = len(np.unique(tested["image"][tested[name] <= level]))
            low, high = clopper_pearson(rejected, marked)
            print(
                f"{name} at {level}: any rejection in {rejected / marked:.4f} [{low:.4f}, {high:.4f}] of these images"
            )
    unadjusted = len(np.unique(tested["image"][tested["p_value"] <= 0.05]))
    print(f"unadjusted at 0.05: {unadjusted / marked:.4f}")
    print(f"first region of each image: {uniformity(tested['p_value'][tested['first'] == 1])}")


if __name__ == "__main__":
    main()
