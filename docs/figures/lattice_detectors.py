"""Draw docs/figures/lattice_detectors.png: p-values of true null hypotheses about detectors that are not piecewise
linear, from results/reference/lattice_*.csv (benchmarks/validity_lattice.py), against the uniform distribution."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sigad.figures.style import save_figure

HERE = Path(__file__).parent
RUNS = {
    "transformer": "transformer features",
    "unet": "U-Net of diffusers",
    "patchcore": "memory bank",
    "student_teacher": "student and teacher",
    "isolation_forest": "isolation forest",
}
KINDS = {"randomised": "C0", "conservative": "C2", "naive": "C3"}

figure, axes = plt.subplots(1, len(RUNS), figsize=(12, 2.9), sharey=True, layout="constrained")
for (name, title), panel in zip(RUNS.items(), axes, strict=True):
    rows = pd.read_csv(HERE.parents[1] / "results" / "reference" / f"lattice_{name}.csv")
    panel.plot([0, 1], [0, 1], color="grey", linewidth=0.6)
    for kind, color in KINDS.items():
        uniform = (np.arange(len(rows)) + 0.5) / len(rows)
        panel.plot(uniform, np.sort(rows[kind]), color=color, label=kind, linewidth=1.3)
    panel.set(
        title=f"{title}\n{len(rows):,} tests", xlabel="uniform quantile", xlim=(0, 1), ylim=(0, 1), aspect="equal"
    )
axes[0].set_ylabel("p-value")
axes[-1].legend(frameon=False, fontsize="small", loc="upper left")
save_figure(figure, HERE / "lattice_detectors.png")
