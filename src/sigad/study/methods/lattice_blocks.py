"""The localization test of a coarser question, the blocks of pixels that hold a marked one, on a lattice. Exact.

The blocks' regions are wide, so that a coarse lattice and few evaluations do
(:mod:`sigad.study.methods.blocks`, :mod:`sigad.study.methods.lattice`).
"""

from dataclasses import dataclass

from sigad.study.methods import lattice
from sigad.study.problems import Evaluated, Pixels
from sigad.study.settings import setting


@dataclass(frozen=True)
class BlocksOnLattice(lattice.OnLattice):
    """Selective p-values given the marked blocks and the statistic modulo a spacing."""

    label = "lattice, blocks"
    needs = frozenset({"evaluations", "pixels"})

    size: int = setting(4, "side of the blocks in pixels", low=1)

    def hypotheses(self, problems: Pixels) -> Evaluated:
        return problems.at_resolution(self.size)
