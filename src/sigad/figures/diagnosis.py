"""Does the noise model hold? One column for each data set."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import special

from sigad.figures.style import STYLE

_COLOURS = {"neighbour": "#D55E00", "neighbourhood": "#882255", "references": "#0072B2"}
_COLUMNS = 8


def plot_diagnosis(frame: pd.DataFrame) -> Figure:
    """Above, whitened differences of held-out pairs against N(0, 1); below, p-values of detected held-out normals
    against U(0, 1), for each test with its verdict and how many of the detected it rejects.

    ``frame``: columns ``dataset``, ``against``, ``level``, ``residual``, ``p_value``, ``verdict``, ``n_detected``,
    ``n_rejected``.
    """
    datasets = list(dict.fromkeys(frame["dataset"]))
    columns = min(_COLUMNS, len(datasets))
    rows = -(-len(datasets) // columns)
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2 * rows, columns, figsize=(1.7 * columns + 1.0, 3.9 * rows), squeeze=False, layout="constrained"
        )
        for axis in axes.ravel():
            axis.set_visible(False)
        for number, dataset in enumerate(datasets):
            row, column = divmod(number, columns)
            above, below = axes[2 * row, column], axes[2 * row + 1, column]
            some = frame[frame["dataset"] == dataset]
            for place, (against, part) in zip((0.98, 0.86), some.groupby("against", sort=False), strict=False):
                fact = part.iloc[0]
                text = f"{fact['verdict']}: {fact['n_rejected']} of {fact['n_detected']}"
                below.plot(part["level"], part["p_value"], color=_COLOURS[against], label=f"{against}")
                below.text(0.03, place, text, transform=below.transAxes, va="top", fontsize=6, color=_COLOURS[against])
            first = some[some["against"] == some["against"].iloc[0]]
            above.plot(special.ndtri(first["level"]), first["residual"], color="0.2")
            for axis, ends in ((above, (-2.6, 2.6)), (below, (0, 1))):
                axis.plot(ends, ends, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
                axis.set_visible(True)
                sns.despine(ax=axis)
            above.set(title=dataset, xlabel="N(0, 1)")
            below.set(xlabel="U(0, 1)", ylim=(0, 1.25), yticks=np.linspace(0, 1, 3))
            if column == 0:
                above.set_ylabel("whitened differences")
                below.set_ylabel("p-values of normals")
        entries = {label: line for axis in axes[1::2].flat for line, label in zip(*axis.get_legend_handles_labels())}  # noqa: B905
        figure.legend(entries.values(), entries.keys(), loc="outside right center", title="against the")
    return figure
