"""Draw a smooth activation and its piecewise-linear replacement."""

import numpy as np
import pandas as pd
import torch

from sigad.figures.networks import plot_activation
from sigad.figures.style import save_figure
from sigad.line import piecewise
from sigad.study.kinds.localization_synthetic import LocalizationSynthetic
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    smooth = torch.nn.Sequential(torch.nn.SiLU()).double()
    replaced = piecewise(smooth, activations=["SiLU"], knots=LocalizationSynthetic().knots)
    log.info("sup-norm error %.3e", replaced[0].sup_error)
    knots = replaced[0].knots.numpy()
    x = np.union1d(np.linspace(-10, 10, 401), knots)
    values = {name: f(torch.from_numpy(x)).numpy() for name, f in (("SiLU", smooth), ("replacement", replaced))}
    frame = pd.DataFrame({"x": x, **values, "is_knot": np.isin(x, knots)})
    frame.to_csv(snakemake.output.csv, index=False)
    save_figure(plot_activation(frame), snakemake.output.pdf, snakemake.output.png)
