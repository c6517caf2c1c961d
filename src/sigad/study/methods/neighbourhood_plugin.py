"""The neighbourhood test with an estimated covariance taken for the truth: what that costs. Not valid."""

from dataclasses import dataclass

from sigad.study.methods import neighbourhood, proposed
from sigad.study.problems import EstimatedNeighbourhoods, Regions


@dataclass(frozen=True)
class NeighbourhoodPlugin(proposed.Proposed):
    """P-values given the set of neighbours, as if the covariance were known."""

    label = "neighbourhood, plug-in"
    needs = frozenset({"neighbourhoods", "estimated_covariances", "regions"})

    def hypotheses(self, problems: EstimatedNeighbourhoods) -> Regions:
        return problems.plugged_in().of_neighbourhoods()

    seconds = neighbourhood.Neighbourhood.seconds
