"""Test a chunk of trials with one method."""

import json
from collections import Counter
from pathlib import Path

from sigad.study.chunks import chunk_range
from sigad.study.logs import stage_log
from sigad.study.rows import write_rows
from sigad.study.run import run_trials
from sigad.study.seeds import trial_streams


def trial_inputs() -> dict:
    """What the kind of the trials needs besides its setting."""
    if "table" in snakemake.input.keys():
        from sigad.data.tabular import Table

        return {"table": Table.load(snakemake.input.table)}
    if "features" in snakemake.input.keys():
        from sigad.data.images import ImageSet
        from sigad.models.features import restore_features

        images = ImageSet.load(snakemake.input.images, snakemake.input.facts)
        return {"images": images, "features": restore_features(snakemake.input.features)}
    if "model" in snakemake.input.keys():
        return {"model": snakemake.input.model}
    return json.loads(Path(snakemake.input.threshold).read_text(encoding="utf-8"))


with stage_log(snakemake.log[0]) as log:
    at, params = snakemake.wildcards, snakemake.params
    streams = trial_streams(params.seed, at.experiment, at.setting, chunk_range(at.chunk))
    rows = run_trials(params.kind, at.method, params.setting, streams, **trial_inputs())
    log.info("%s", dict(Counter(rows["status"])))
    for rep, reason in zip(rows["rep"], rows["reason"], strict=True):
        if reason:
            log.warning("trial %d failed: %s", rep, reason)
    write_rows(snakemake.output.rows, rows)
