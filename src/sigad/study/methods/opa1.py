"""OpA1: an ablation that conditions on the linear piece of the network and on no event of the neighbours.

Niihori et al. (2025), section 5.1: "excludes the selection events for NN". What is left is the interval around the
observation on which the network is one linear function of both moving instances. Not valid in general: the neighbour
was selected, and that is ignored.
"""

from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import NetworkPieces, PValues


class OpA1(Method[NetworkPieces]):
    """P-values given the linear piece."""

    label = "OpA1 (network only)"
    needs = frozenset({"network_pieces"})

    def pvalues(self, problems: NetworkPieces, streams) -> PValues:
        return problems.piece_only()

    def seconds(self, cost: Cost) -> float:
        return cost.draw + cost.piece
