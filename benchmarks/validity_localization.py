"""P-values of true null hypotheses: the localization test on trained diffusion models.

    python benchmarks/validity_localization.py 8 1850 results/reference/localization_8x8.csv
    python benchmarks/validity_localization.py 16 1040 results/reference/localization_16x16.csv

trains the noise predictor (a minute, kept in benchmarks/output) and writes a row per trial: images N(0, I), no signal.
Rows are appended as they come, and a run that was stopped goes on where it stopped.
"""

import sys
from pathlib import Path

import torch
from _validity import SEED, run

from sigad.models.diffusion.training import train_on_noise
from sigad.study.kinds.localization_synthetic import LocalizationSynthetic

EPOCHS = {8: 40, 16: 20}


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
    stream = ("validity_localization", f"size={size}")
    run(path, trials, LocalizationSynthetic(size=size), stream, every=True, model=trained(size))


if __name__ == "__main__":
    main()
