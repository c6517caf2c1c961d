"""Draw the loss curves of the trained networks."""

import pandas as pd

from sigad.figures.networks import plot_training
from sigad.figures.style import save_figure
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]):
    models = zip(snakemake.params.models, snakemake.input.loss, strict=True)
    frame = pd.concat([pd.read_csv(path).assign(**model) for model, path in models], ignore_index=True)
    frame = frame.astype({"size": int, "replica": int})
    frame.to_csv(snakemake.output.csv, index=False)
    save_figure(plot_training(frame), snakemake.output.pdf, snakemake.output.png)
