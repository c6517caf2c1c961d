"""The synthetic models from which instances are drawn."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sigad.data.synthetic import MODELS, draw_knn_instances
from sigad.figures.style import STYLE, VALUES
from sigad.seeds import Streams
from sigad.study.kinds.knn_synthetic import KnnSynthetic


def model_points(seed: int) -> pd.DataFrame:
    """One trial of each model of the kind ``knn_synthetic`` in two dimensions: what :func:`plot_models` draws."""
    default, parts = KnnSynthetic(), []
    for model in MODELS:
        stream = Streams(seed, "fig06_models", model, 0).data()
        trial = draw_knn_instances([stream], model=model, n=default.n, d=2, clusters=default.clusters)
        for role, points in {"training": trial.x_train[0], "test": trial.x_test}.items():
            parts.append(pd.DataFrame({"model": model, "role": role, "x1": points[:, 0], "x2": points[:, 1]}))
    return pd.concat(parts, ignore_index=True)


def plot_models(frame: pd.DataFrame) -> Figure:
    """Training instances and test instance of each synthetic model in two dimensions.

    ``frame``: columns ``model``, ``role`` ("training" or "test"), ``x1``, ``x2``.
    """
    models = list(dict.fromkeys(frame["model"]))
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(models), figsize=(3.1 * len(models), 3.0), squeeze=False, layout="constrained"
        )
        for axis, model in zip(axes[0], models, strict=True):
            for role, style in {
                "training": {"s": 12, "color": sns.color_palette("colorblind")[0], "alpha": 0.7},
                "test": {"s": 60, "color": sns.color_palette("colorblind")[3], "marker": "*"},
            }.items():
                rows = frame[(frame["model"] == model) & (frame["role"] == role)]
                axis.scatter(
                    rows["x1"], rows["x2"], label=f"{role} instance{'s' if role == 'training' else ''}", **style
                )
            axis.set_title(VALUES.get(model, model))
            axis.set_xlabel("$x_1$")
            axis.set_aspect("equal", adjustable="datalim")
            sns.despine(ax=axis)
        axes[0, 0].set_ylabel("$x_2$")
        axes[0, 0].legend(loc="best")
    return figure
