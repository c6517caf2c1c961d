"""The selective test by the lattice engine: conditions on the selection, and on the statistic mod the spacing. Exact.

For detectors along whose line a search takes too long: the cost does not depend on their linear pieces
(:mod:`sigad.inference.lattice`). Its p-values are randomised, and so uniform.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sigad.seeds import Streams
from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import Evaluated, PValues
from sigad.study.settings import setting

REACH = 24.0
"""The engine lays out a lattice on so many standard deviations of the line."""


@dataclass(frozen=True)
class Lattice(Method[Evaluated]):
    """Selective p-values of a detector that is run at finitely many points."""

    label = "lattice"
    needs = frozenset({"evaluations"})

    spacing: float = setting(0.1, "of the lattice, in standard deviations", above=0)
    levels: int = setting(2, "so often it is halved at most", low=1)
    points: int = setting(20, "while there are fewer points than these at which the selection is the same", low=1)

    def pvalues(self, problems: Evaluated, streams: Sequence[Streams]) -> PValues:
        from sigad.inference.lattice import Refinement  # needs torch, which laying out an experiment does not

        return problems.on_lattice(streams, spacing=self.spacing, refinement=Refinement(self.levels, self.points))

    def seconds(self, cost: Cost) -> float:
        return cost.draw + 2**self.levels * REACH / self.spacing * cost.evaluation
