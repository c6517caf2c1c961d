"""The paper's selective test with an estimated covariance taken for the truth. Not valid where few rows estimate it."""

from dataclasses import dataclass

from sigad.study.methods import proposed
from sigad.study.problems import EstimatedCovariances, Regions


@dataclass(frozen=True)
class ProposedPlugin(proposed.Proposed):
    """Selective p-values as if the covariance were known."""

    label = "proposed, plug-in"
    needs = frozenset({"estimated_covariances", "regions"})

    def hypotheses(self, problems: EstimatedCovariances) -> Regions:
        return problems.plugged_in()
