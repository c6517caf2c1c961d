"""Draw examples, noise models, and maps of p-values."""

import numpy as np
import pandas as pd

from sigad.figures.images import plot_examples, plot_map, plot_noise
from sigad.figures.style import save_figure
from sigad.study.image_views import PValueMap, examples_table
from sigad.study.logs import stage_log


def write(figure, frame, paths, stem):
    """Write a figure and its numbers to those of the paths that belong to it."""
    pdf, png, csv = (next(p for p in paths if p.endswith(f"{stem}.{suffix}")) for suffix in ("pdf", "png", "csv"))
    frame.to_csv(csv, index=False)
    save_figure(figure, pdf, png)


with stage_log(snakemake.log[0]):
    datasets, out = snakemake.params.datasets, snakemake.output
    frame = pd.concat([pd.read_csv(path) for path in snakemake.input.noise], ignore_index=True)
    write(plot_noise(frame), frame, out.noise, "image_noise")
    frame, pixels = examples_table(dict(zip(datasets, snakemake.input.examples, strict=True)))
    write(plot_examples(frame, pixels), frame, out.examples, "fig05_examples")
    for dataset, path in zip(datasets, snakemake.input.maps, strict=True):
        with np.load(path) as content:
            seen = PValueMap(**{name: content[name] for name in content.files})
        figure = plot_map(seen.table, seen.picture, int(seen.patch), level=snakemake.params.level)
        write(figure, seen.table, out.maps, f"image_map_{dataset}")
