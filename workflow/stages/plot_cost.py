"""Draw what a p-value costs: linear pieces and seconds."""

from collections import defaultdict

import numpy as np
import pandas as pd

from sigad.figures.cost import plot_cost
from sigad.figures.style import save_figure
from sigad.study.logs import stage_log
from sigad.study.rows import read_rows

LEVELS = (0.25, 0.5, 0.75)

with stage_log(snakemake.log[0]) as log:
    params = snakemake.params
    x = params.plot["x"]
    files = defaultdict(list)
    for (setting, method, _), path in zip(params.cells, snakemake.input.rows, strict=True):
        files[params.settings[setting][x], method].append(path)
    result = []
    for (value, method), paths in files.items():
        rows = read_rows(paths, columns=("status", "n_evaluations", "seconds"))
        tested = rows["status"] == "tested"
        line = {x: value, "method": method, "n_trials": len(tested), "n_tested": int(tested.sum())}
        for name in ("n_evaluations", "seconds"):
            some = rows[name][tested]
            quantiles = np.quantile(some, LEVELS) if len(some) else [np.nan] * len(LEVELS)
            line |= {f"{name}_{label}": q for label, q in zip(("low", "median", "high"), quantiles, strict=True)}
            line[f"{name}_mean"] = some.mean() if len(some) else np.nan
        result.append(line)
    frame = pd.DataFrame(result)
    frame.to_csv(snakemake.output.csv, index=False)
    save_figure(plot_cost(frame, x=x), snakemake.output.pdf, snakemake.output.png)
