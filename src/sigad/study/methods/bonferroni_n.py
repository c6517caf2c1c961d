"""Bonferroni over the n possible neighbours: the naive p-value times n, capped at 1.

The hypothesis depends on which instance is the k-th neighbour and on nothing else, so that n is a valid factor, far
below the paper's C(n, k): the stronger competitor of the two.
"""

import numpy as np

from sigad.study.methods import Method
from sigad.study.methods.naive import log_pvalues
from sigad.study.problems import Neighbours, PValues


class BonferroniN(Method[Neighbours]):
    """min(1, n times the naive p-value)."""

    label = "Bonferroni, n"
    needs = frozenset({"neighbours"})

    def pvalues(self, problems: Neighbours, streams) -> PValues:
        return PValues.exact(np.exp(np.minimum(problems.log_neighbours + log_pvalues(problems), 0.0)))
