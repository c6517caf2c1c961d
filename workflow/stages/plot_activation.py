"""Draw a smooth activation and its piecewise-linear replacement."""

from sigad.figures.networks import plot_activation, replacement
from sigad.figures.style import save_figure
from sigad.study.kinds.localization_synthetic import LocalizationSynthetic
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    frame, error = replacement(LocalizationSynthetic().knots)
    log.info("sup-norm error %.3e", error)
    frame.to_csv(snakemake.output.csv, index=False)
    save_figure(plot_activation(frame), snakemake.output.pdf, snakemake.output.png)
