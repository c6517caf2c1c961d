"""The proposed selective test: conditions on the selection (Niihori et al. 2025, Theorem 4.1). Exact."""

from sigad.study.methods import Problems, PValues

LABEL = "proposed"
APPLIES_TO = None
NEEDS_SELECTION = True


def pvalues(problems: Problems, streams) -> PValues:
    """Selective p-values."""
    return problems.selective()
