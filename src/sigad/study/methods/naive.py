"""The naive test: ignores that the data chose the hypothesis (Niihori et al. 2025, section 4.2). Not valid."""

import numpy as np

from sigad.inference.region import WHOLE_LINE
from sigad.inference.truncated import truncated_pvalue
from sigad.study.methods import Method
from sigad.study.problems import Problems, PValues


def log_pvalues(problems: Problems) -> np.ndarray:
    """Log of the naive p-values, (B,), which does not underflow."""
    return truncated_pvalue(problems.statistic, WHOLE_LINE, null=problems.null, log=True)


class Naive(Method[Problems]):
    """Tail probabilities of the statistic without truncation."""

    label = "naive"

    def pvalues(self, problems: Problems, streams) -> PValues:
        return PValues.exact(np.exp(log_pvalues(problems)))
