"""The selective test that does not condition on the data-driven k: the union of the regions of all candidates.

The paper conditions on the selected k as well. The hypothesis depends on the neighbour j only, so the condition can be
dropped: a larger region, still an exact test.
"""

from sigad.study.knn_problems import KnnProblems
from sigad.study.methods import PValues

LABEL = "proposed, any k"
APPLIES_TO = ("knn_synthetic", "knn_tabular", "knn_images")
NEEDS_SELECTION = True


def pvalues(problems: KnnProblems, streams) -> PValues:
    """Selective p-values given the neighbour, not given k."""
    return problems.selective(condition_on_k=False)
