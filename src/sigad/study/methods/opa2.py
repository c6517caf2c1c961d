"""OpA2: an ablation that conditions on the events of the neighbours and not on the pieces of the network.

Niihori et al. (2025), section 5.1: "excludes the selection events for DNN". The network is replaced by its tangents at
the observation, and the neighbours' events are those of the linear features, on the whole line. Not valid in general:
away from the observation the network is another function.
"""

from sigad.study.kinds.knn_images import KnnImageProblems
from sigad.study.methods import PValues

LABEL = "OpA2 (neighbours only)"
APPLIES_TO = ("knn_images",)
NEEDS_SELECTION = True


def pvalues(problems: KnnImageProblems, streams) -> PValues:
    """P-values given the neighbours' events of the linearised network."""
    return problems.neighbours_only()
