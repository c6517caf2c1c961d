"""Train the noise predictor of one size."""

from pathlib import Path

import pandas as pd

from sigad.data.sealed import seal_folder
from sigad.models.diffusion.training import train_on_noise
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    params = snakemake.params
    # Not an output, so that it outlives an interruption; of this code only.
    checkpoint = Path(snakemake.output.loss).with_suffix(f".{params.code}.checkpoint")
    unet, curve = train_on_noise(
        int(snakemake.wildcards.size),
        activation=snakemake.wildcards.activation,
        replica=int(snakemake.wildcards.replica),
        seed=params.seed,
        checkpoint=checkpoint,
        **params.training,
    )
    log.info("%d epochs, last loss %.4f", len(curve), curve[-1].loss)
    unet.save_pretrained(snakemake.output.unet)
    seal_folder(snakemake.output.unet)
    pd.DataFrame(curve).to_csv(snakemake.output.loss, index=False)
    checkpoint.unlink(missing_ok=True)
