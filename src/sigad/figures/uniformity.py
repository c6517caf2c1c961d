"""P-values of true null hypotheses against the uniform distribution."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sigad.figures.style import STYLE, series_style


def plot_uniformity(frame: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """QQ plots of p-values against U(0, 1), and below them the deviations with the 95% Kolmogorov-Smirnov band.

    ``frame``: columns ``method``, ``setting``, ``uniform`` (quantile of U(0, 1)), ``quantile`` (of the p-values).
    ``table``: one row per method and setting with ``n``, ``ks_p_value``, ``ad_p_value``.
    """
    settings, methods = list(dict.fromkeys(frame["setting"])), list(dict.fromkeys(frame["method"]))
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2,
            len(settings),
            figsize=(2.5 * len(settings) + 0.6, 4.4),
            sharex=True,
            sharey="row",
            squeeze=False,
            height_ratios=[2, 1],
            layout="constrained",
        )
        for column, setting in enumerate(settings):
            above, below = axes[:, column]
            above.plot([0, 1], [0, 1], color="0.4", linewidth=0.8, linestyle="--")
            below.axhline(0, color="0.4", linewidth=0.8, linestyle="--")
            lines = []
            for method in methods:
                rows = frame[(frame["setting"] == setting) & (frame["method"] == method)]
                facts = table[(table["setting"] == setting) & (table["method"] == method)]
                if rows.empty or facts.empty:
                    continue
                style = series_style("method", method, methods) | {"marker": "none"}
                above.plot(rows["uniform"], rows["quantile"], **style)
                below.plot(rows["uniform"], rows["quantile"] - rows["uniform"], **style)
                fact = facts.iloc[0]
                lines.append(f"n = {fact['n']:,}\nKS p = {fact['ks_p_value']:.2f}\nAD p = {fact['ad_p_value']:.2f}")
                band = 1.358 / np.sqrt(max(fact["n"], 1))
            below.axhspan(-band, band, color="0.9", zorder=0)
            if len(methods) == 1:
                above.text(0.04, 0.96, lines[0], transform=above.transAxes, va="top", fontsize=7)
            above.set_title(setting.replace("_", ", ").replace("=", " = "))
            above.set_aspect("equal", adjustable="box")
            below.set_xlabel("quantile of U(0, 1)")
            sns.despine(ax=above)
            sns.despine(ax=below)
        axes[0, 0].set_ylabel("quantile of the p-values")
        axes[1, 0].set_ylabel("difference")
        if len(methods) > 1:
            figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure
