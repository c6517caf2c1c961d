"""Permutation test: the pixels of test and reference image are pooled and dealt out anew, and the region marked anew.

An ablation of the paper (Katsuoka et al. 2026). Not exact: only a test image with a marked region is tested, and the
permuted pairs mix the pixels of that image with those of the reference, which nothing has selected.
"""

from typing import TYPE_CHECKING

from sigad.study.methods import PValues

if TYPE_CHECKING:
    from sigad.study.localization_problems import LocalizationProblems

LABEL = "permutation"
APPLIES_TO = ("localization_synthetic",)
NEEDS_SELECTION = True


def pvalues(problems: "LocalizationProblems", streams) -> PValues:
    """Shares of permutations with a statistic as large."""
    return problems.permuted(streams)
