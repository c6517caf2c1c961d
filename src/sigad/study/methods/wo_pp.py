"""w/o-pp: the selective test without parametric programming, an ablation (Niihori et al. 2025, section 5.1).

Conditions on more than the selection so that the region is one interval: valid, with less power.
"""

from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import PValues, Regions


class WithoutParametricProgramming(Method[Regions]):
    """Over-conditioned selective p-values."""

    label = "w/o-pp"
    needs = frozenset({"regions"})

    def pvalues(self, problems: Regions, streams) -> PValues:
        return problems.over_conditioned()

    def seconds(self, cost: Cost) -> float:
        return cost.draw + cost.piece
