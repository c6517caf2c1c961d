"""The localization test of a coarser question: the blocks of pixels that hold a marked one. Exact.

It conditions on these blocks only, not on the exact mask: less resolution, more power
(:mod:`sigad.localization.coarse`). Its null hypothesis is its own: the mean over all of the blocks is that of the
reference.
"""

from dataclasses import dataclass

from sigad.study.kinds import Cost
from sigad.study.methods import proposed
from sigad.study.problems import Pixels, Regions
from sigad.study.settings import setting


@dataclass(frozen=True)
class Blocks(proposed.Proposed):
    """Selective p-values given the marked blocks."""

    label = "blocks"
    needs = frozenset({"pixels", "regions"})

    size: int = setting(4, "side of the blocks in pixels", low=1)

    def hypotheses(self, problems: Pixels) -> Regions:
        return problems.at_resolution(self.size)

    def seconds(self, cost: Cost) -> float:
        return cost.draw + 2 * cost.search  # the regions are wider, and more of the line is searched
