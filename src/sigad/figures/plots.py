"""Figures: one style, one function per kind of figure. Each draws exactly the numbers of the frame that it gets."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sigad.study import methods

STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
}
NAMES = {
    "n": "number of training instances $n$",
    "d": "dimension $d$",
    "k": "number of neighbours $k$",
    "signal": "signal $\\Delta$",
    "distance": "1-Wasserstein distance from N(0, 1)",
    "dataset": "data set",
    "size": "side of the image in pixels",
    "variance_images": "independent images from which the variance is estimated",
    "n_pieces": "linear pieces",
    "seconds": "seconds per p-value",
    "type1": "Type I error rate",
    "power": "power",
}
VALUES = {
    "parametric": "parametric: N(0, I)",
    "clusters": "semi-parametric: clusters",
    "skewnorm": "skew-normal",
    "exponnorm": "exponentially modified normal",
    "gennorm_steep": "generalized normal, steep",
    "gennorm_flat": "generalized normal, flat",
    "t": "Student t",
    "identity": "$\\Sigma = I$",
    "ar1": "$\\Sigma_{ij} = 0.5^{|i-j|}$",
}
# A method keeps its colour and marker in every figure (Okabe & Ito's palette); others follow in the order they are met.
METHODS = {
    "proposed": ("#D55E00", "o"),
    "proposed_any_k": ("#E69F00", "s"),
    "wo_pp": ("#0072B2", "D"),
    "opa1": ("#56B4E9", "^"),
    "opa2": ("#332288", "v"),
    "naive": ("#000000", "X"),
    "bonferroni": ("#009E73", "P"),
    "bonferroni_n": ("#117733", "*"),
    "permutation": ("#AA4499", "p"),
    "hotelling_t2": ("#CC79A7", "d"),
    "unselective_oracle": ("0.35", "<"),
    "uniform": ("0.6", ">"),
}
OTHERS = list(zip(sns.color_palette("colorblind", 10), "osD^vPXd*h", strict=True))


def series_style(series: str, value: str, values: Sequence[str]) -> dict:
    """Label, colour and marker of one line of a figure."""
    known = METHODS if series == "method" else {}
    rank = [v for v in values if v not in known].index(value) if value not in known else None
    color, marker = known[value] if rank is None else OTHERS[rank % len(OTHERS)]
    label = methods.load(value).LABEL if series == "method" else VALUES.get(value, f"{series} = {value}")
    return {"label": label, "color": color, "marker": marker, "linestyle": ":" if label.startswith("control") else "-"}


def _panel_title(name: str, value) -> str:
    return VALUES.get(value, f"${name}$ = {value}")


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
        lines.sort(key=lambda m: list(METHODS).index(m) if m in METHODS else len(METHODS))
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
            axis.set_title("" if value is None else _panel_title(panel, value))
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


def plot_cost(frame: pd.DataFrame, *, x: str) -> Figure:
    """Linear pieces and seconds per p-value over x, on logarithmic axes: medians, with bars over the quartiles.

    ``frame``: columns x, ``method``, and ``<quantity>_low``, ``_median`` and ``_high`` for both quantities.
    """
    methods, ticks = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame[x]))
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.7), layout="constrained")
        for axis, quantity in zip(axes, ("n_pieces", "seconds"), strict=True):
            for method in methods:
                rows = frame[frame["method"] == method]
                middle = rows[f"{quantity}_median"]
                error = np.clip([middle - rows[f"{quantity}_low"], rows[f"{quantity}_high"] - middle], 0, None)
                position = [ticks.index(value) for value in rows[x]]
                style = series_style("method", method, methods)
                axis.errorbar(position, middle, yerr=error, capsize=2, elinewidth=0.8, **style)
            axis.set_yscale("log")
            axis.set_xticks(range(len(ticks)), [str(t) for t in ticks])
            axis.set_xlim(-0.5, len(ticks) - 0.5)
            axis.set_xlabel(NAMES.get(x, x))
            axis.set_ylabel(NAMES[quantity])
            sns.despine(ax=axis)
        if len(methods) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def plot_training(frame: pd.DataFrame) -> Figure:
    """Loss curves: ``frame`` has columns ``size``, ``activation``, ``replica``, ``epoch``, ``loss``."""
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(4.2, 2.7), layout="constrained")
        colors = sns.color_palette("colorblind")
        for i, ((size, activation), rows) in enumerate(frame.groupby(["size", "activation"], sort=True)):
            mean = rows.groupby("epoch")["loss"].mean()
            axis.plot(mean.index + 1, mean, color=colors[i % 10], label=f"{size} × {size}, {activation}")
        axis.set_xlabel("epoch")
        axis.set_ylabel("mean squared error")
        axis.legend()
        sns.despine(ax=axis)
    return figure


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


def save_figure(figure: Figure, *paths: str | Path) -> None:
    """Write a figure to files, without time stamps, and close it."""
    for path in paths:
        figure.savefig(path, metadata={"CreationDate": None} if str(path).endswith(".pdf") else None)
    plt.close(figure)
