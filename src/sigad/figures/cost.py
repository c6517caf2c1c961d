"""What a p-value costs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sigad.figures.style import NAMES, STYLE, series_style


def plot_cost(frame: pd.DataFrame, *, x: str) -> Figure:
    """Linear pieces and seconds per p-value over x, on logarithmic axes: medians, with bars over the quartiles.

    ``frame``: columns x, ``method``, and ``<quantity>_low``, ``_median`` and ``_high`` for both quantities.
    """
    methods, ticks = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame[x]))
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.7), layout="constrained")
        for axis, quantity in zip(axes, ("n_evaluations", "seconds"), strict=True):
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
