"""Draw the p-values of true null hypotheses against the uniform distribution, and test their uniformity."""

from collections import defaultdict

import pandas as pd

from sigad.figures.style import save_figure
from sigad.figures.uniformity import plot_uniformity
from sigad.study.logs import stage_log
from sigad.study.rates import uniform_quantiles, uniformity
from sigad.study.rows import read_rows

with stage_log(snakemake.log[0]) as log:
    files = defaultdict(list)
    for (setting, method, _), path in zip(snakemake.params.cells, snakemake.input.rows, strict=True):
        files[setting, method].append(path)
    points, table = [], []
    for (setting, method), paths in files.items():
        rows = read_rows(paths)
        p_values = rows["p_value"][(rows["status"] == "tested") & (rows["null_true"] == True)]  # noqa: E712
        result = uniformity(p_values)
        log.info("%s %s: %s", setting, method, result)
        counts = {"n_trials": len(rows["status"]), "n_failed": int((rows["status"] == "failed").sum())}
        table.append({"setting": setting, "method": method} | counts | result._asdict())
        if len(p_values):
            points.append(pd.DataFrame({"setting": setting, "method": method} | uniform_quantiles(p_values)))
    frame, table = pd.concat(points, ignore_index=True), pd.DataFrame(table)
    frame.to_csv(snakemake.output.csv, index=False)
    table.to_csv(snakemake.output.table, index=False)
    save_figure(plot_uniformity(frame, table), snakemake.output.pdf, snakemake.output.png)
