"""Test a chunk of the trials of a part of the grid with one method."""

from collections import Counter
from pathlib import Path

from sigad.study import kinds, methods
from sigad.study.chunks import chunk_range
from sigad.study.logs import stage_log
from sigad.study.rows import trial_facts, write_rows
from sigad.study.run import run_experiment

with stage_log(snakemake.log[0]) as log:
    at, params = snakemake.wildcards, snakemake.params
    kind, method = kinds.load(params.kind), methods.load(at.method.partition("-")[0])
    results = run_experiment(
        {point: kind.of(values) for point, values in params.settings.items()},
        method.of(params.parameters),
        seed=params.seed,
        experiment=at.experiment,
        repetitions=chunk_range(at.chunk),
        results=Path(params.results),
    )
    for point, rows in results.items():
        log.info("%s: %s", point, dict(Counter(rows["status"])))
        for rep, reason in zip(rows["rep"], rows["reason"], strict=True):
            if reason:
                log.warning("%s: trial %d failed: %s", point, rep, reason)
    write_rows(
        snakemake.output.rows, results, trial_facts(at.experiment, at.method, params.seed, params.code, params.settings)
    )
