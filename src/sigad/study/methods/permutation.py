"""Permutation test: the pixels of test and reference image are pooled and dealt out anew, and the region marked anew.

An ablation of the paper (Katsuoka et al. 2026). Not exact: only a test image with a marked region is tested, and the
permuted pairs mix the pixels of that image with those of the reference, which nothing has selected.
"""

from dataclasses import dataclass

from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import Pixels, PValues
from sigad.study.settings import setting


@dataclass(frozen=True)
class Permutation(Method[Pixels]):
    """Shares of permutations with a statistic as large."""

    label = "permutation"
    needs = frozenset({"pixels"})

    permutations: int = setting(1000, "pairs of images with permuted pixels", low=1, source="paper")

    def pvalues(self, problems: Pixels, streams) -> PValues:
        return problems.permuted(streams, self.permutations)

    def seconds(self, cost: Cost) -> float:
        return cost.draw + self.permutations * cost.evaluation
