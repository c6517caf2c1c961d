"""The neighbourhood test with an estimated covariance taken for the truth: what that costs. Not valid."""

from dataclasses import dataclass

from sigad.study.methods import neighbourhood
from sigad.study.problems import EstimatedCovariances, Problems


@dataclass(frozen=True)
class NeighbourhoodPlugin(neighbourhood.Neighbourhood):
    """P-values given the set of neighbours, as if the covariance were known."""

    label = "neighbourhood, plug-in"
    needs = frozenset({"neighbourhoods", "estimated_covariances"})

    def hypotheses(self, problems: EstimatedCovariances) -> Problems:
        return super().hypotheses(problems.plugged_in())
