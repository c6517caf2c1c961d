"""Fetch the scans of TCGA-LGG or BraTS, with the credentials of the environment, and unpack them."""

from sigad.data.stack_sources import fetch_scans
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    source = snakemake.params.source
    log.info("%s is at %s", source, fetch_scans(source, snakemake.params.data))
