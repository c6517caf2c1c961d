"""Fetch a table from its official home."""

from sigad.data.sources import fetch
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    name = snakemake.wildcards.dataset
    log.info("%s is at %s", name, fetch(name, snakemake.params.entry, snakemake.params.data))
