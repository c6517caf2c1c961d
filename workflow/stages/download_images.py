"""Fetch the official archive of an image category and unpack it."""

from sigad.data.mvtec import fetch
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    name, entry = snakemake.wildcards.dataset, snakemake.params.entry
    log.info("%s is at %s", name, fetch(name, entry, snakemake.params.data))
