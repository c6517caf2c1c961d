"""Bring a table into one form: numeric columns and which rows are normal."""

from sigad.data.sources import load
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    table = load(snakemake.wildcards.dataset, snakemake.params.entry, snakemake.params.data)
    log.info("%d rows, %d of them normal; columns: %s", len(table), table.normal.sum(), ", ".join(table.columns))
    for note in table.notes:
        log.info("%s", note)
    table.save(snakemake.output.table)
