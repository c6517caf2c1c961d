"""Draw one trial of each synthetic model in two dimensions."""

from sigad.figures.style import save_figure
from sigad.figures.synthetic import model_points, plot_models
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]):
    frame = model_points(snakemake.params.seed)
    frame.to_csv(snakemake.output.csv, index=False)
    save_figure(plot_models(frame), snakemake.output.pdf, snakemake.output.png)
