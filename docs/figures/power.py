"""Draw docs/figures/power.png: Type I error and power of the kNN tests over the signal, from
results/reference/knn_power.csv."""

from pathlib import Path

import pandas as pd

from sigad.figures.style import METHODS, STYLE, plt, save_figure, sns
from sigad.study import methods

HERE = Path(__file__).parent
LABELS = {"neighbourhood": "neighbourhood", "proposed": "paper's test: k-th neighbour"}

rows = pd.read_csv(HERE.parents[1] / "results" / "reference" / "knn_power.csv")
with sns.axes_style("ticks"), plt.rc_context(STYLE):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.2, 3.0), layout="constrained", gridspec_kw={"width_ratios": [1, 2]}
    )
    for place, (name, some) in enumerate(rows.groupby("method", sort=False)):
        color, marker = METHODS[name]
        bars = [some["rate"] - some["low"], some["high"] - some["rate"]]
        null = some["signal"] == 0
        given = {"color": color, "marker": marker, "capsize": 2}
        left.errorbar([place], some["rate"][null], [b[null] for b in bars], **given)
        label = LABELS.get(name, methods.label(name))
        right.errorbar(some["signal"][~null], some["rate"][~null], [b[~null] for b in bars], label=label, **given)
    left.axhline(0.05, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
    left.set(xticks=[], ylim=(0, 0.1), ylabel="Type I error rate", xlabel="no signal")
    right.set(ylim=(0, 1.02), ylabel="power", xlabel="signal in one of 10 coordinates")
    figure.legend(loc="outside right center")
    sns.despine(figure)
save_figure(figure, HERE / "power.png")
