"""Draw the loss curves of the trained networks."""

import pandas as pd

from sigad.logs import stage_log
from sigad.plotting import plot_training, save_figure

with stage_log(snakemake.log[0]):
    parts = []
    for model, path in zip(snakemake.params.models, snakemake.input.loss, strict=True):
        parts.append(pd.DataFrame({"model": model}, index=[0]).merge(pd.read_csv(path), how="cross"))
    frame = pd.concat(parts, ignore_index=True)
    frame.to_csv(snakemake.output.csv, index=False)
    save_figure(plot_training(frame), snakemake.output.pdf, snakemake.output.png)
