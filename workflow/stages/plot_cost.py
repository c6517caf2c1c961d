"""Draw what a p-value costs: linear pieces and seconds."""

from sigad.figures.cost import plot_cost
from sigad.figures.style import save_figure
from sigad.study.logs import stage_log
from sigad.study.summary import Trials, cost_table

with stage_log(snakemake.log[0]):
    x, out = snakemake.params.plot["x"], snakemake.output
    frame = cost_table(Trials(**snakemake.params.trials, files=snakemake.input.rows), x)
    frame.to_csv(out.csv, index=False)
    save_figure(plot_cost(frame, x=x), out.pdf, out.png)
