"""Networks: how they were trained, and what a replaced activation looks like."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sigad.figures.style import STYLE


def plot_training(frame: pd.DataFrame) -> Figure:
    """Loss curves: ``frame`` has columns ``size``, ``activation``, ``replica``, ``epoch``, ``loss``."""
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(4.2, 2.7), layout="constrained")
        colors = sns.color_palette("colorblind")
        means = frame.groupby(["size", "activation", "epoch"], as_index=False)["loss"].mean()
        networks = means[["size", "activation"]].drop_duplicates().itertuples(index=False)
        for i, (size, activation) in enumerate(networks):
            mean = means[(means["size"] == size) & (means["activation"] == activation)]
            axis.plot(mean["epoch"] + 1, mean["loss"], color=colors[i % 10], label=f"{size} × {size}, {activation}")
        axis.set_xlabel("epoch")
        axis.set_ylabel("mean squared error")
        axis.legend()
        sns.despine(ax=axis)
    return figure


def replacement(knots: int) -> tuple[pd.DataFrame, float]:
    """The activation SiLU and its piecewise-linear replacement, as :func:`plot_activation` draws them, and the largest
    difference of the two."""
    import torch  # not for curves of loss

    from sigad.line import piecewise

    smooth = torch.nn.Sequential(torch.nn.SiLU()).double()
    replaced = piecewise(smooth, activations=["SiLU"], knots=knots)
    activation: Any = next(replaced.children())
    at = activation.knots.numpy()
    x = np.union1d(np.linspace(-10, 10, 401), at)
    values = {name: f(torch.from_numpy(x)).numpy() for name, f in (("SiLU", smooth), ("replacement", replaced))}
    return pd.DataFrame({"x": x, **values, "is_knot": np.isin(x, at)}), activation.sup_error


def plot_activation(frame: pd.DataFrame) -> Figure:
    """A smooth activation, its piecewise-linear replacement with its knots, and below their difference.

    ``frame``: columns ``x``, the activation's name, ``replacement``, ``is_knot``.
    """
    name = next(column for column in frame if column not in ("x", "replacement", "is_knot"))
    colors, knots = sns.color_palette("colorblind"), frame[frame["is_knot"]]
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(3.6, 3.6), sharex=True, height_ratios=[2, 1], layout="constrained"
        )
        above.plot(frame["x"], frame[name], color="0.3", label=name)
        above.plot(frame["x"], frame["replacement"], color=colors[3], linestyle="--", label="piecewise linear")
        above.plot(knots["x"], knots["replacement"], "o", color=colors[3], markersize=3)
        above.legend()
        below.plot(frame["x"], frame["replacement"] - frame[name], color=colors[3])
        below.axhline(0, color="0.4", linewidth=0.8)
        below.set_ylabel("difference")
        below.set_xlabel("$x$")
        for axis in (above, below):
            sns.despine(ax=axis)
    return figure
