"""Type I error on real data: what an estimated covariance and the question that is asked do to it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sigad.figures.rates import COUNTS
from sigad.figures.style import STYLE

TESTS = {
    "proposed": ("k-th neighbour", "exact"),
    "proposed_plugin": ("k-th neighbour", "plug-in"),
    "neighbourhood": ("neighbourhood", "exact"),
    "neighbourhood_plugin": ("neighbourhood", "plug-in"),
}
"""What each method asks, and how it treats the estimated covariance."""

_COVARIANCES = {"exact": ("#882255", -0.16), "plug-in": ("#56B4E9", 0.16)}


def validity(rates: pd.DataFrame) -> pd.DataFrame:
    """The rates of :data:`TESTS` on each data set, with ``against`` and ``covariance``; other methods are left out."""
    rows = rates[rates["method"].isin(list(TESTS))]
    named = pd.DataFrame([TESTS[method] for method in rows["method"]], columns=["against", "covariance"])
    return pd.concat([rows[["dataset"]].reset_index(drop=True), named, rows[[*COUNTS]].reset_index(drop=True)], axis=1)


def plot_validity(frame: pd.DataFrame, *, alpha: float) -> Figure:
    """Type I error rates with exact intervals, a row for each data set, a panel for each hypothesis; filled where the
    interval covers alpha or lies below it.

    ``frame``: columns ``dataset``, ``against``, ``covariance``, ``rate``, ``low``, ``high``, ``n_counted``.
    """
    datasets, hypotheses = (list(dict.fromkeys(frame[name])) for name in ("dataset", "against"))
    # Few detected normals have intervals that reach beyond what is of interest.
    most = min(1.0, 1.1 * max(frame["rate"].max(), frame["high"][frame["n_counted"] > 100].max(), 3 * alpha))
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(hypotheses),
            figsize=(3.0 * len(hypotheses) + 1.4, 0.28 * len(datasets) + 1.0),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, against in zip(axes[0], hypotheses, strict=True):
            for covariance, (color, shift) in _COVARIANCES.items():
                rows = frame[(frame["against"] == against) & (frame["covariance"] == covariance)]
                place = np.array([datasets.index(name) for name in rows["dataset"]]) + shift
                axis.hlines(place, rows["low"], rows["high"], color=color, linewidth=1.2)
                for fits, face in ((True, color), (False, "white")):
                    some = ((rows["low"] <= alpha) == fits).to_numpy()
                    axis.plot(rows["rate"][some], place[some], "o", color=color, markerfacecolor=face, zorder=3)
            axis.axvline(alpha, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
            axis.set(xlim=(0, most), xlabel="Type I error rate", title=f"against the {against}")
            sns.despine(ax=axis)
        axes[0, 0].set_yticks(range(len(datasets)), datasets)
        axes[0, 0].invert_yaxis()
        handles = [plt.Line2D([], [], color=color, marker="o", label=name) for name, (color, _) in _COVARIANCES.items()]
        handles.append(plt.Line2D([], [], color="0.4", linestyle="--", linewidth=0.8, label=f"$\\alpha$ = {alpha:g}"))
        figure.legend(handles=handles, loc="outside right center", title="covariance")
    return figure
