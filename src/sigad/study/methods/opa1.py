"""OpA1: an ablation that conditions on the linear piece of the network and on no event of the neighbours.

Niihori et al. (2025), section 5.1: "excludes the selection events for NN". What is left is the interval around the
observation on which the network is one linear function of both moving instances. Not valid in general: the neighbour
was selected, and that is ignored.
"""

from sigad.study.kinds.knn_images import KnnImageProblems
from sigad.study.methods import PValues

LABEL = "OpA1 (network only)"
APPLIES_TO = ("knn_images",)
NEEDS_SELECTION = True


def pvalues(problems: KnnImageProblems, streams) -> PValues:
    """P-values given the linear piece."""
    return problems.piece_only()
