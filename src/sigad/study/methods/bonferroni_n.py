"""Bonferroni over the n possible neighbours: the naive p-value times n, capped at 1.

The hypothesis depends on which instance is the k-th neighbour and on nothing else, so that n is a valid factor, far
below the paper's C(n, k): the stronger competitor of the two.
"""

import numpy as np

from sigad.study.knn_problems import KnnProblems
from sigad.study.methods import PValues, naive

LABEL = "Bonferroni, n"
APPLIES_TO = ("knn_synthetic", "knn_tabular", "knn_images")
NEEDS_SELECTION = True


def pvalues(problems: KnnProblems, streams) -> PValues:
    """min(1, n times the naive p-value)."""
    return PValues.exact(np.exp(np.minimum(problems.log_neighbours + naive.log_pvalues(problems), 0.0)))
