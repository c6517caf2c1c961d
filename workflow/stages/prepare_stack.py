"""Check whole images, prepare them and split them by patient."""

from sigad.data.stack_sources import make
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    at, params = snakemake.wildcards, snakemake.params
    stack = make(at.dataset, params.entry, params.data, size=int(at.size), seed=params.seed)
    log.info("%r; %d images left out, see %s", stack, len(stack.left_out), snakemake.output.manifest)
    stack.save(snakemake.output.stack, snakemake.output.manifest)
