"""A control of the machinery: the chi test on a fresh replicate of the selected pair, which no selection has touched.

Only where the signals are known (synthetic data): new noise is drawn for the test instance and its selected neighbour,
and the untruncated test is applied. Exactly valid, and the power that the test would have if the hypothesis had been
fixed beforehand: what selection costs is the distance to this line.
"""

from sigad.inference.region import WHOLE_LINE
from sigad.inference.truncated import truncated_pvalue
from sigad.study.methods import Method
from sigad.study.problems import FreshPairs, PValues


class UnselectiveOracle(Method[FreshPairs]):
    """Naive p-values of replicated pairs."""

    label = "control: fresh pair"
    needs = frozenset({"fresh_pairs"})

    def pvalues(self, problems: FreshPairs, streams) -> PValues:
        return PValues.exact(truncated_pvalue(problems.fresh_statistic(streams), WHOLE_LINE, null=problems.null))
