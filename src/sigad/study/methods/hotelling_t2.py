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

from sigad.study.knn_problems import KnnProblems
from sigad.study.methods import PValues

LABEL = "Hotelling T²"
APPLIES_TO = ("knn_synthetic", "knn_tabular")
NEEDS_SELECTION = False


def pvalues(problems: KnnProblems, streams) -> PValues:
    """Upper tail probabilities of the F distribution."""
    x_test, x_train = problems.detections.x_test, problems.detections.x_train
    n, d = x_train.shape[-2:]
    if n <= d:
        return PValues.exact(np.ones(len(x_test)))
    mean = x_train.mean(axis=-2)
    centred = x_train - mean[:, None, :]
    scatter = np.swapaxes(centred, -1, -2) @ centred / (n - 1)
    away = x_test - mean
    t2 = (away * np.linalg.solve(scatter, away[..., None])[..., 0]).sum(axis=-1) * n / (n + 1)
    return PValues.exact(special.fdtrc(d, n - d, t2 * (n - d) / (d * (n - 1))))
