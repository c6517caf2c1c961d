"""Train a detector on the normal images of a stack, and show reconstructions, of no test image."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from sigad.data.sealed import seal_folder
from sigad.data.stack import ImageStack
from sigad.models import autoencoder
from sigad.models.diffusion import training
from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
from sigad.models.fitting import mirrored
from sigad.seeds import Streams
from sigad.study.logs import stage_log

SHOWN, SPOT = 6, 3.0
"""So many images are shown, half of them with a bright square, in standard deviations of the training images."""

with stage_log(snakemake.log[0]) as log:
    at, params, output = snakemake.wildcards, snakemake.params, snakemake.output
    # Not an output, so that it outlives an interruption; of this code only.
    checkpoint = Path(output.loss).with_suffix(f".{params.code}.checkpoint")
    stack = ImageStack.load(snakemake.input.stack)
    rng = Streams(params.seed, "train_detector", f"{at.stack}_{at.detector}", 0).data()
    train = {"autoencoder": autoencoder.train, "diffusion": training.train}[at.detector]
    network, curve = train(
        mirrored(torch.from_numpy(stack.of("train")).float()),
        seed=int(rng.integers(2**31)),
        checkpoint=checkpoint,
        device="cuda" if torch.cuda.is_available() else "cpu",
        **params.training,
    )
    log.info("%d epochs, last loss %.4f", len(curve), curve[-1].loss)
    network.save_pretrained(output.network)
    seal_folder(output.network)
    pd.DataFrame(curve).to_csv(output.loss, index=False)

    shape = stack.images.shape[1:]
    reconstruct = network if at.detector == "autoencoder" else Reconstruction(network, draw_noises(rng, shape).float())
    shown, side = stack.of("noise")[:SHOWN], stack.images.shape[-1]
    spot = slice(side // 2, side // 2 + max(1, side // 6))
    shown[SHOWN // 2 :, :, spot, spot] += SPOT * stack.of("train").std()
    with torch.no_grad():
        again = reconstruct(torch.from_numpy(shown).float()).numpy()
    figure = Figure(figsize=(1.5 * len(shown), 3.2), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False)
    low, high = np.quantile(shown, [0.01, 0.99])
    for row, images in zip(axes, (shown, again), strict=True):
        for place, image in zip(row, images, strict=True):
            place.imshow(image.mean(0), cmap="gray", vmin=low, vmax=high)
            place.set(xticks=[], yticks=[])
    axes[0][0].set_ylabel("image")
    axes[1][0].set_ylabel("reconstruction")
    figure.savefig(output.examples, dpi=100)
    checkpoint.unlink(missing_ok=True)
