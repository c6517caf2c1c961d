"""Rejection rates of an experiment: one row per setting and method, with exact intervals and all counts."""

from collections import defaultdict

import pandas as pd

from sigad.study.logs import stage_log
from sigad.study.rates import rejection_rate
from sigad.study.rows import read_rows

with stage_log(snakemake.log[0]) as log:
    params = snakemake.params
    files = defaultdict(list)
    for (setting, method, _), path in zip(params.cells, snakemake.input.rows, strict=True):
        files[setting, method].append(path)
    result = []
    for (setting, method), paths in files.items():
        rows = read_rows(paths)
        tested = rows["status"] == "tested"
        rate = rejection_rate(
            rows["status"],
            rows["null_true"],
            rows["p_value"],
            measure=params.measure,
            alpha=params.alpha,
            level=params.level,
        )
        seconds = rows["seconds"][tested].mean() if tested.any() else float("nan")
        result.append(
            {**params.settings[setting], "method": method, "measure": params.measure}
            | rate._asdict()
            | {"mean_seconds": seconds}
        )
        log.info("%s %s: %s", setting, method, rate)
    pd.DataFrame(result).to_csv(snakemake.output.rates, index=False)
