"""The synthetic models from which instances are drawn."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sigad.figures.style import STYLE, VALUES


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
