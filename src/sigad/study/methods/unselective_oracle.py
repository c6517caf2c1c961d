"""A control of the machinery: the chi test on a fresh replicate of the selected pair, which no selection has touched.

Only where the signals are known (synthetic data): new noise is drawn for the test instance and its selected neighbour,
and the untruncated test is applied. Exactly valid, and the power that the test would have if the hypothesis had been
fixed beforehand: what selection costs is the distance to this line.
"""

import numpy as np

from sigad.inference.region import WHOLE_LINE
from sigad.inference.truncated import truncated_pvalue
from sigad.study.knn_problems import KnnProblems
from sigad.study.methods import PValues

LABEL = "control: fresh pair"
APPLIES_TO = ("knn_synthetic",)
NEEDS_SELECTION = True


def pvalues(problems: KnnProblems, streams) -> PValues:
    """Naive p-values of replicated pairs."""
    fresh = np.array([problems.draw_difference(stream.method()) for stream in streams])
    statistic = np.sqrt((np.square(problems.signal_difference + fresh) / (2 * problems.covariance)).sum(axis=-1))
    return PValues.exact(truncated_pvalue(statistic, WHOLE_LINE, null=problems.null))
