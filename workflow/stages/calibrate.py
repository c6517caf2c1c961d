"""Score held-out normal instances, from which the thresholds of an experiment are estimated."""

from sigad.study import kinds
from sigad.study.calibration import calibrate, write_scores
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    params = snakemake.params
    kind = kinds.load(params.kind)
    scores = calibrate({point: kind.of(values) for point, values in params.settings.items()}, params.seed, params.size)
    log.info("%d distributions, %d scores of each", len(scores), params.size)
    write_scores(snakemake.output.scores, scores, {"seed": params.seed, "size": params.size, "code": params.code})
