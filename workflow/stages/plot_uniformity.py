"""Draw the p-values of true null hypotheses against the uniform distribution, and test their uniformity."""

from sigad.figures.style import save_figure
from sigad.figures.uniformity import plot_uniformity
from sigad.study.logs import stage_log
from sigad.study.summary import Trials, uniformity_tables

with stage_log(snakemake.log[0]) as log:
    out = snakemake.output
    frame, table = uniformity_tables(Trials(**snakemake.params.trials, files=snakemake.input.rows))
    log.info("\n%s", table.to_string(index=False))
    frame.to_csv(out.csv, index=False)
    table.to_csv(out.table, index=False)
    save_figure(plot_uniformity(frame, table), out.pdf, out.png)
