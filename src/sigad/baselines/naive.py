"""The naive test: ignores that the data chose the hypothesis (Niihori et al. 2025, section 4.2). Not valid."""

import numpy as np

from sigad.baselines import Problems, PValues
from sigad.region import WHOLE_LINE
from sigad.truncated import truncated_pvalue

LABEL = "naive"
APPLIES_TO = None
NEEDS_SELECTION = True


def log_pvalues(problems: Problems) -> np.ndarray:
    """Log of the naive p-values, (B,), which does not underflow."""
    return truncated_pvalue(problems.statistic, WHOLE_LINE, null=problems.null, log=True)


def pvalues(problems: Problems, streams) -> PValues:
    """Tail probabilities of the statistic without truncation."""
    return PValues.exact(np.exp(log_pvalues(problems)))
