"""Type I error on every real data set, of both hypotheses and with both treatments of the estimated covariance."""

import pandas as pd

from sigad.figures.style import save_figure
from sigad.figures.validity import plot_validity, validity
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    params, out = snakemake.params, snakemake.output
    frame = validity(pd.concat([pd.read_csv(path) for path in snakemake.input.rates], ignore_index=True))
    log.info("\n%s", frame.to_string(index=False))
    frame.to_csv(out.csv, index=False)
    save_figure(plot_validity(frame, alpha=params.alpha), out.pdf, out.png)
