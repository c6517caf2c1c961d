"""P-values of true null hypotheses: the deep kNN test on patches drawn from an estimated noise model.

    python benchmarks/validity_images.py brick 12000 results/reference/knn_images_brick.csv

trains the small network on textures (half a minute, kept in benchmarks/output). In every trial all patches are drawn
from the normal distribution that was estimated on the real ones, so that the null hypothesis holds exactly; the
threshold detects about one in ten, and a row is written for each of these. Rows are appended as they come, and a run
that was stopped goes on where it stopped.
"""

import sys
from pathlib import Path

import torch
from _validity import SEED, run

from sigad.data.images import texture_patches
from sigad.knn.network import NetworkFeatures
from sigad.models.features import load_features, restore_features, save_features
from sigad.study.kinds.knn_images import KnnImages

NETWORK = {"train": "textures", "layer": "12"}


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
    stream = ("validity_images", f"dataset={name}")
    setting = KnnImages(dataset=name, instance="gaussian", features="small_cnn")
    run(path, trials, setting, stream, every=False, **given)


if __name__ == "__main__":
    main()
