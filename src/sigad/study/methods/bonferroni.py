"""Bonferroni: the naive p-value times the number of hypotheses the data could have chosen, capped at 1.

For k nearest neighbours these are the C(n, k) sets of neighbours (Niihori et al. 2025, section 5.1). Valid, and with
little power. The product is taken of the logarithms, for C(1000, 10) is 1e23 and the naive p-value may be 1e-300.
"""

import numpy as np

from sigad.study.methods import Method
from sigad.study.methods.naive import log_pvalues
from sigad.study.problems import Problems, PValues


class Bonferroni(Method[Problems]):
    """min(1, number of hypotheses times the naive p-value)."""

    label = "Bonferroni"

    def pvalues(self, problems: Problems, streams) -> PValues:
        return PValues.exact(np.exp(np.minimum(problems.log_hypotheses + log_pvalues(problems), 0.0)))
