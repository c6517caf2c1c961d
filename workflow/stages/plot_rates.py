"""Draw the rates of an experiment."""

import pandas as pd

from sigad.figures.rates import plot_rates
from sigad.figures.style import save_figure
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]):
    plot = snakemake.params.plot
    roles = {role: plot[role] for role in ("x", "panel", "series") if role in plot}
    # What stands in the figure, and the counts behind it. Names such as 1-10 must not be read as anything else.
    columns = list(dict.fromkeys([*roles.values(), "method", "measure"]))
    counts = ["n_trials", "n_not_selected", "n_failed", "n_tested", "n_counted", "n_rejected", "rate", "low", "high"]
    frame = pd.read_csv(snakemake.input.rates, dtype={"k": str})[columns + counts]
    frame.to_csv(snakemake.output.csv, index=False)
    figure = plot_rates(frame, measure=snakemake.params.measure, alpha=snakemake.params.alpha, **roles)
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
