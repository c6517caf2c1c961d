"""Rates of rejection, with their exact intervals."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sigad.figures.style import METHODS, NAMES, STYLE, panel_title, series_style
from sigad.study import methods

COUNTS = (
    "n_trials",
    "n_hypotheses",
    "n_not_selected",
    "n_failed",
    "n_tested",
    "n_counted",
    "n_rejected",
    "rate",
    "low",
    "high",
    "mixed",
)


def plotted(
    rates: pd.DataFrame, *, x: str, y: str | None = None, series: str = "method", panel: str | None = None
) -> pd.DataFrame:
    """What stands in the figure, and the counts behind it."""
    return rates[[*dict.fromkeys(role for role in (x, y, panel, series, "method", "measure") if role), *COUNTS]]


def plot_rates(
    frame: pd.DataFrame, *, measure: str, x: str, series: str = "method", panel: str | None = None, alpha: float
) -> Figure:
    """Rates with exact intervals over x, one line per series, one panel per value of ``panel``.

    ``frame`` has the columns x, series, panel (if given), ``rate``, ``low`` and ``high``. The values of x stand at
    equal distances, in the order of the frame; within one, the series stand beside each other so that their bars can
    be read.
    """
    panels = [None] if panel is None else list(dict.fromkeys(frame[panel]))
    lines = list(dict.fromkeys(frame[series]))
    if series == "method":
        rank = {name: i for i, name in enumerate(METHODS)}
        lines.sort(key=lambda method: rank.get(method.partition("-")[0], len(rank)))
    named = x == "dataset"
    n_x = frame[x].nunique()
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        width = max(2.6, 0.75 * n_x + 0.6) if named else 3.4
        # One panel has to share its width with the legend.
        width += 2.0 if len(panels) == 1 else 0
        figure, axes = plt.subplots(
            1, len(panels), figsize=(width * len(panels), 2.9), sharey=True, squeeze=False, layout="constrained"
        )
        top = np.nanmax([*frame["high"].where(frame["rate"].notna()).dropna(), 2 * alpha, 0.0])
        for axis, value in zip(axes[0], panels, strict=True):
            part = frame if value is None else frame[frame[panel] == value]
            ticks = list(dict.fromkeys(part[x]))
            for i, line in enumerate(lines):
                rows = part[part[series] == line]
                if rows.empty:
                    continue
                spread = 0.6 if named else 0.3
                shift = spread * (i - (len(lines) - 1) / 2) / max(len(lines), 1)
                position = np.array([ticks.index(v) for v in rows[x]]) + shift
                error = np.clip([rows["rate"] - rows["low"], rows["high"] - rows["rate"]], 0, None)
                style = series_style(series, line, lines)
                if named:
                    style["linestyle"] = "none"
                axis.errorbar(position, rows["rate"], yerr=error, capsize=2, elinewidth=0.8, **style)
            if measure == "type1":
                axis.axhline(alpha, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
            axis.set_xticks(range(len(ticks)), [str(t) for t in ticks])
            axis.set_xlim(-0.5, len(ticks) - 0.5)
            axis.set_xlabel(NAMES.get(x, x))
            axis.set_title("" if panel is None else panel_title(panel, value))
            axis.set_ylim(0, 1.02 if measure == "power" and top > 0.5 else min(1.02, 1.08 * top))
            sns.despine(ax=axis)
        axes[0, 0].set_ylabel(NAMES[measure])
        handles: dict = {}
        for axis in axes[0]:
            handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        if measure == "type1":
            handles[f"$\\alpha$ = {alpha:g}"] = plt.Line2D([], [], color="0.4", linewidth=0.8, linestyle="--")
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
    return figure


def plot_surface(frame: pd.DataFrame, *, measure: str, x: str, y: str) -> Figure:
    """Rates over x and y as shades with their numbers, a panel for each method.

    ``frame`` has the columns x, y, ``method`` and ``rate``; the values of x and y stand at equal distances, in the
    order of the frame. A rate that could not be measured, for nothing was detected, stays white.
    """
    panels = list(dict.fromkeys(frame["method"]))
    columns, rows = list(dict.fromkeys(frame[x])), list(dict.fromkeys(frame[y]))
    with sns.axes_style("white"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(panels),
            figsize=((0.55 * len(columns) + 0.6) * len(panels) + 1.2, 0.45 * len(rows) + 1.1),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, method in zip(axes[0], panels, strict=True):
            table = frame[frame["method"] == method].pivot(index=y, columns=x, values="rate").loc[rows, columns]
            rates = np.asarray(table, np.float64)
            drawn = axis.pcolormesh(rates, vmin=0, vmax=1, cmap="viridis")
            for (i, j), rate in np.ndenumerate(rates):
                if np.isfinite(rate):
                    colour = "white" if rate < 0.6 else "black"
                    axis.text(j + 0.5, i + 0.5, f"{rate:.2f}", ha="center", va="center", fontsize=7, color=colour)
            axis.set_xticks(np.arange(len(columns)) + 0.5, [str(value) for value in columns])
            axis.set_yticks(np.arange(len(rows)) + 0.5, [str(value) for value in rows])
            axis.set_xlabel(NAMES.get(x, x))
            axis.set_title(methods.label(method))
        axes[0, 0].set_ylabel(NAMES.get(y, y))
        figure.colorbar(drawn, ax=list(axes[0]), label=NAMES[measure])
    return figure
