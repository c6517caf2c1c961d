"""Rates of an experiment: one row per grid point and method, with exact intervals and all counts; and their figure."""

from sigad.figures.rates import plot_rates, plot_surface, plotted
from sigad.figures.style import save_figure
from sigad.study.logs import stage_log
from sigad.study.summary import Trials, rates_table

with stage_log(snakemake.log[0]) as log:
    params, out = snakemake.params, snakemake.output
    trials = Trials(**params.trials, files=snakemake.input.rows)
    rates = rates_table(trials, measure=params.measure, alpha=params.alpha, level=params.level)
    rates.to_csv(out.rates, index=False)
    roles = {role: params.plot[role] for role in ("x", "y", "panel", "series") if role in params.plot}
    frame = plotted(rates, **roles)
    log.info("\n%s", frame.to_string(index=False))
    frame.to_csv(out.csv, index=False)
    if "y" in roles:
        figure = plot_surface(frame, measure=params.measure, **roles)
    else:
        figure = plot_rates(frame, measure=params.measure, alpha=params.alpha, **roles)
    save_figure(figure, out.pdf, out.png)
