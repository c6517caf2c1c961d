"""Estimate the threshold of the anomaly score on held-out normal instances."""

import json
from pathlib import Path

from sigad.study.kinds.knn_synthetic import calibrate_threshold
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    theta = calibrate_threshold(snakemake.params.setting, snakemake.params.seed, snakemake.params.size)
    log.info("theta = %r, from %d held-out instances", theta, snakemake.params.size)
    Path(snakemake.output.threshold).write_text(json.dumps({"theta": theta}) + "\n", encoding="utf-8")
