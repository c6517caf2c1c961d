"""The proposed selective test: conditions on the selection (Niihori et al. 2025, Theorem 4.1). Exact."""

from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import Problems, PValues


class Proposed(Method):
    """Selective p-values."""

    label = "proposed"

    def pvalues(self, problems: Problems, streams) -> PValues:
        return problems.selective()

    def seconds(self, cost: Cost) -> float:
        return cost.draw + cost.search
