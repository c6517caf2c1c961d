"""Draw one trial of each synthetic model in two dimensions."""

import pandas as pd

from sigad.data.synthetic import MODELS, draw_knn_instances
from sigad.figures.style import save_figure
from sigad.figures.synthetic import plot_models
from sigad.study.kinds.knn_synthetic import KnnSynthetic
from sigad.study.logs import stage_log
from sigad.study.seeds import Streams

with stage_log(snakemake.log[0]):
    default, parts = KnnSynthetic(), []
    for model in MODELS:
        stream = Streams(snakemake.params.seed, "fig06_models", model, 0).data()
        trial = draw_knn_instances([stream], model=model, n=default.n, d=2, clusters=default.clusters)
        for role, points in {"training": trial.x_train[0], "test": trial.x_test}.items():
            parts.append(pd.DataFrame({"model": model, "role": role, "x1": points[:, 0], "x2": points[:, 1]}))
    frame = pd.concat(parts, ignore_index=True)
    frame.to_csv(snakemake.output.csv, index=False)
    save_figure(plot_models(frame), snakemake.output.pdf, snakemake.output.png)
