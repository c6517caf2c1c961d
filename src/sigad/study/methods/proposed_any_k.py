"""The selective test that does not condition on the data-driven k: the union of the regions of all candidates.

The paper conditions on the selected k as well. The hypothesis depends on the neighbour j only, so the condition can be
dropped: a larger region, still an exact test.
"""

from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import Neighbours, PValues


class ProposedAnyK(Method[Neighbours]):
    """Selective p-values given the neighbour, not given k."""

    label = "proposed, any k"
    needs = frozenset({"neighbours", "regions"})

    def pvalues(self, problems: Neighbours, streams) -> PValues:
        return problems.selective(condition_on_k=False)

    def seconds(self, cost: Cost) -> float:
        return cost.draw + 4 * cost.search  # a region for each candidate k
