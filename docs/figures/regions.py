"""Draw docs/figures/regions.png: all regions of one image, each tested given all of them (`result.plot()`).

    python docs/figures/regions.py

An image of 32 x 32 pixels of noise N(0, 1) with two spots (6 x 6 pixels, 1.5; 4 x 4 pixels, 1.5), ten references, and
the blocks of 4 x 4 pixels that hold a marked one; the reconstruction is a constant image.
"""

from pathlib import Path

import numpy as np
import torch

from sigad import localization_test
from sigad.models.components import ComponentReconstruction

rng = np.random.default_rng(11)
x, x_ref = rng.standard_normal((1, 32, 32)), rng.standard_normal((10, 1, 32, 32))
x[0, 5:11, 6:12] += 1.5
x[0, 20:24, 21:25] += 1.5
result = localization_test(
    ComponentReconstruction(torch.zeros(2, 1, 32, 32, dtype=torch.float64)),
    x,
    x_ref,
    threshold=1.0,
    covariance=1.0,
    per_region=True,
    resolution=4,
)
print(result)
result.plot().savefig(Path(__file__).with_suffix(".png"), dpi=110)
