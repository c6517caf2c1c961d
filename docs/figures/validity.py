"""Draw docs/figures/validity.png: the reference p-values of true null hypotheses against the uniform distribution."""

from pathlib import Path

import numpy as np
import pandas as pd

from sigad.plotting import plot_uniformity, save_figure
from sigad.rates import uniformity

HERE = Path(__file__).parent
RUNS = {
    "localization_8x8": "localization 8 x 8",
    "localization_16x16": "localization 16 x 16",
    "knn_images_brick": "CNN features brick",
    "knn_images_grass": "CNN features grass",
}
LEVELS = (np.arange(200) + 0.5) / 200

points, table = [], []
for name, setting in RUNS.items():
    rows = pd.read_csv(HERE.parents[1] / "results" / "reference" / f"{name}.csv").query("status == 'tested'")
    for method, column in (("proposed", "p_value"), ("naive", "naive")):
        table.append({"setting": setting, "method": method} | uniformity(rows[column].to_numpy())._asdict())
        quantiles = np.quantile(rows[column], LEVELS)
        points.append(pd.DataFrame({"setting": setting, "method": method, "uniform": LEVELS, "quantile": quantiles}))
save_figure(plot_uniformity(pd.concat(points), pd.DataFrame(table)), HERE / "validity.png")
