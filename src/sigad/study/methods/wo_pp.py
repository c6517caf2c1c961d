"""w/o-pp: the selective test without parametric programming, an ablation (Niihori et al. 2025, section 5.1).

Conditions on more than the selection so that the region is one interval: valid, with less power.
"""

from sigad.study.methods import Problems, PValues

LABEL = "w/o-pp"
APPLIES_TO = None
NEEDS_SELECTION = True


def pvalues(problems: Problems, streams) -> PValues:
    """Over-conditioned selective p-values."""
    return problems.over_conditioned()
