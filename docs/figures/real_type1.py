"""Draw docs/figures/real_type1.png: Type I error on real tables and patches of images, from knn_tables.csv and
knn_patches.csv in results/reference. k = 5, components as many as the rule chooses."""

from pathlib import Path

import pandas as pd

from sigad.figures.style import save_figure
from sigad.figures.validity import TESTS, plot_validity

HERE = Path(__file__).parent
REFERENCE = HERE.parents[1] / "results" / "reference"
NAMES = {"neighbour": "proposed", "neighbour_plugin": "proposed_plugin"}

tables, patches = (pd.read_csv(REFERENCE / f"knn_{name}.csv") for name in ("tables", "patches"))
patches = patches[patches["rule"] == "tails"]
patches = patches.assign(table=patches["images"] + ", " + patches["features"])
rows = pd.concat([tables, patches], ignore_index=True)
rows = rows[(rows["measure"] == "type1") & (rows["k"] == "5")].replace({"method": NAMES})
rows = rows[rows["method"].isin(list(TESTS))].rename(columns={"table": "dataset", "detected": "n_counted"})
rows[["against", "covariance"]] = [TESTS[method] for method in rows["method"]]
save_figure(plot_validity(rows.reset_index(drop=True), alpha=0.05), HERE / "real_type1.png")
