"""Draw docs/figures/validity.png: the reference p-values of true null hypotheses against the uniform distribution."""

from pathlib import Path

import pandas as pd

from sigad.figures.style import save_figure
from sigad.figures.uniformity import plot_uniformity
from sigad.study.rates import uniform_quantiles, uniformity

HERE = Path(__file__).parent
RUNS = {
    "localization_8x8": "localization 8 x 8",
    "localization_16x16": "localization 16 x 16",
    "knn_images_brick": "CNN features brick",
    "knn_images_grass": "CNN features grass",
}

points, table = [], []
for name, setting in RUNS.items():
    rows = pd.read_csv(HERE.parents[1] / "results" / "reference" / f"{name}.csv").query("status == 'tested'")
    for method, column in (("proposed", "p_value"), ("naive", "naive")):
        table.append({"setting": setting, "method": method} | uniformity(rows[column].to_numpy())._asdict())
        points.append(pd.DataFrame({"setting": setting, "method": method} | uniform_quantiles(rows[column])))
save_figure(plot_uniformity(pd.concat(points), pd.DataFrame(table)), HERE / "validity.png")
