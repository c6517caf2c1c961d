"""The neighbourhood test: against the mean of the nearest instances, as many as the largest candidate for k. Exact.

It conditions on the set of these and on the detection, not on which of them is the k-th: a coarser question than the
paper's, with several times the power (:mod:`sigad.knn.neighbourhood`). Its null hypothesis is its own: the signal of
the test instance is the mean of the signals of its neighbours.
"""

from dataclasses import dataclass

from sigad.study.kinds import Cost
from sigad.study.methods import proposed
from sigad.study.problems import Neighbourhoods, Regions


@dataclass(frozen=True)
class Neighbourhood(proposed.Proposed):
    """Selective p-values given the set of neighbours."""

    label = "neighbourhood"
    needs = frozenset({"neighbourhoods", "regions"})

    def hypotheses(self, problems: Neighbourhoods) -> Regions:
        return problems.of_neighbourhoods()

    def seconds(self, cost: Cost) -> float:
        return cost.draw + cost.neighbourhood * cost.search
