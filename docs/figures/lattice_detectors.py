"""Draw docs/figures/lattice_detectors.png: p-values of true null hypotheses about detectors that are not piecewise
linear, from results/reference/lattice_*.csv (benchmarks/validity_lattice.py), against the uniform distribution."""

from pathlib import Path

import pandas as pd

from sigad.figures.style import save_figure
from sigad.figures.uniformity import plot_uniformity
from sigad.study.rates import uniform_quantiles, uniformity

HERE = Path(__file__).parent
RUNS = {
    "transformer": "transformer features",
    "unet": "U-Net of diffusers",
    "patchcore": "memory bank",
    "student_teacher": "student and teacher",
    "isolation_forest": "isolation forest",
}

points, table = [], []
for name, setting in RUNS.items():
    rows = pd.read_csv(HERE.parents[1] / "results" / "reference" / f"lattice_{name}.csv")
    for method in ("randomised", "conservative", "naive"):
        table.append({"setting": setting, "method": method} | uniformity(rows[method].to_numpy())._asdict())
        points.append(pd.DataFrame({"setting": setting, "method": method} | uniform_quantiles(rows[method])))
save_figure(plot_uniformity(pd.concat(points), pd.DataFrame(table)), HERE / "lattice_detectors.png")
