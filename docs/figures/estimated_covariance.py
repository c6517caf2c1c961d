"""Draw docs/figures/estimated_covariance.png: Type I error of both kNN tests over the degrees of freedom of the
estimated covariance, exact and as a plug-in, from results/reference/knn_validity.csv."""

from pathlib import Path

import pandas as pd

from sigad.figures.style import STYLE, plt, save_figure, sns

HERE = Path(__file__).parent
COLOURS = {"neighbour": "#D55E00", "neighbourhood": "#882255"}

rows = pd.read_csv(HERE.parents[1] / "results" / "reference" / "knn_validity.csv").query("covariance == 'matrix'")
rows = rows.assign(ratio=rows["degrees_of_freedom"] / rows["d"])
with sns.axes_style("ticks"), plt.rc_context(STYLE):
    figure, axis = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
    for against, some in rows.groupby("against"):
        some = some.sort_values("ratio")
        given = {"color": COLOURS[against], "linestyle": "none"}
        axis.plot(some["ratio"], some["plugin_05"], marker="o", fillstyle="none", label=f"{against}, plug-in", **given)
        axis.plot(some["ratio"], some["rate_05"], marker="o", label=f"{against}, exact", **given)
    axis.axhline(0.05, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
    axis.set(xscale="log", xlabel="degrees of freedom over dimension, $\\nu/d$", ylabel="Type I error rate at 0.05")
    axis.set(xticks=[1.2, 2, 3, 5, 10], xticklabels=["1.2", "2", "3", "5", "10"], ylim=(0, None))
    axis.minorticks_off()
    axis.legend()
    sns.despine(ax=axis)
save_figure(figure, HERE / "estimated_covariance.png")
