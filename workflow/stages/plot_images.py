"""Draw examples, noise models, and maps of p-values."""

import io

import numpy as np
import pandas as pd

from sigad.figures.images import plot_examples, plot_map, plot_noise
from sigad.figures.style import save_figure
from sigad.study.logs import stage_log


def by_suffix(paths, stem):
    """The PDF, PNG and CSV among the paths that belong to a figure."""
    return [next(p for p in paths if p.endswith(f"{stem}.{suffix}")) for suffix in ("pdf", "png", "csv")]


with stage_log(snakemake.log[0]):
    datasets, out = snakemake.params.datasets, snakemake.output

    frame = pd.concat([pd.read_csv(path) for path in snakemake.input.noise], ignore_index=True)
    pdf, png, csv = by_suffix(out.noise, "image_noise")
    frame.to_csv(csv, index=False)
    save_figure(plot_noise(frame), pdf, png)

    frames, pixels = [], {}
    for dataset, path in zip(datasets, snakemake.input.examples, strict=True):
        with np.load(path) as content:
            facts = pd.read_json(io.StringIO(str(content["facts"])), orient="records", precise_float=True)
            if facts.empty:
                continue
            for i in range(len(facts)):
                pixels[len(pixels)] = tuple(content[f"{name}_{i}"] for name in ("image", "patch", "neighbour"))
            facts.insert(0, "dataset", dataset)
            frames.append(facts)
    columns = ["dataset", "truth", "image", "row", "column", "patch", "score", "naive", "selective"]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    pdf, png, csv = by_suffix(out.examples, "fig05_examples")
    frame.to_csv(csv, index=False)
    save_figure(plot_examples(frame, pixels), pdf, png)

    for dataset, path in zip(datasets, snakemake.input.maps, strict=True):
        with np.load(path) as content:
            seen = {name: content[name] for name in content.files}
        rows, columns = np.indices(seen["detected"].shape)
        names = ("defect", "detected", "naive", "selective", "rejected")
        frame = pd.DataFrame(
            {"row": rows.ravel(), "column": columns.ravel()} | {name: seen[name].ravel() for name in names}
        )
        pdf, png, csv = by_suffix(out.maps, f"image_map_{dataset}")
        frame.to_csv(csv, index=False)
        save_figure(plot_map(frame, seen["picture"], int(seen["patch"]), level=snakemake.params.level), pdf, png)
