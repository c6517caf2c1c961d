"""Hotelling's T2: is the test instance an outlier of one Gaussian fitted to the training instances?

Classical parametric anomaly detection, no neighbours and no selection (Niihori et al. 2025, section 5.1). With n
training instances of one Gaussian in d dimensions and one new observation,

    T2 = (x - mean)' S^(-1) (x - mean) n / (n + 1),   T2 (n - d) / (d (n - 1)) ~ F(d, n - d)    exactly.

It does not depend on what the neighbours say, so it is applied to every instance, detected or not; on the detected ones
alone it would not be valid. Nor is it for training instances that come from several clusters. Undefined for n <= d:
the p-value is then 1.
"""

import numpy as np
from scipy import special

from sigad.study.methods import Method
from sigad.study.problems import Instances, PValues


class HotellingT2(Method[Instances]):
    """Upper tail probabilities of the F distribution."""

    label = "Hotelling T²"
    needs = frozenset({"instances"})
    needs_selection = False
    of_instance = True

    def pvalues(self, problems: Instances, streams) -> PValues:
        x_test, x_train = problems.x_test, problems.x_train
        n, d = x_train.shape[-2:]
        if n <= d:
            return PValues.exact(np.ones(len(x_test)))
        mean = x_train.mean(axis=-2)
        centred = x_train - mean[:, None, :]
        scatter = np.swapaxes(centred, -1, -2) @ centred / (n - 1)
        away = x_test - mean
        t2 = (away * np.linalg.solve(scatter, away[..., None])[..., 0]).sum(axis=-1) * n / (n + 1)
        return PValues.exact(special.fdtrc(d, n - d, t2 * (n - d) / (d * (n - 1))))
