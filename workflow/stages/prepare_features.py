"""Fetch or train the network whose features are used."""

from sigad.models.features import load_features, save_features
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    entry = snakemake.params.entry
    module = load_features(entry, snakemake.params.data, seed=snakemake.params.seed)
    log.info("%d parameters", sum(parameter.numel() for parameter in module.parameters()))
    save_features(entry, module, snakemake.output.network)
