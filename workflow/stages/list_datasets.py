"""List the data sets: which are used, which are left out, and why."""

import pandas as pd

from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]):
    used = [(name, "used", "") for name in snakemake.params.used]
    left_out = [(name, "left out", reason) for name, reason in snakemake.params.left_out.items()]
    frame = pd.DataFrame(used + left_out, columns=["dataset", "status", "reason"])
    frame.to_csv(snakemake.output.csv, index=False)
