"""OpA2: an ablation that conditions on the events of the neighbours and not on the pieces of the network.

Niihori et al. (2025), section 5.1: "excludes the selection events for DNN". The network is replaced by its tangents at
the observation, and the neighbours' events are those of the linear features, on the whole line. Not valid in general:
away from the observation the network is another function.
"""

from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import NetworkPieces, PValues


class OpA2(Method[NetworkPieces]):
    """P-values given the neighbours' events of the linearised network."""

    label = "OpA2 (neighbours only)"
    needs = frozenset({"network_pieces"})

    def pvalues(self, problems: NetworkPieces, streams) -> PValues:
        return problems.neighbours_only()

    def seconds(self, cost: Cost) -> float:
        return cost.draw + cost.piece
