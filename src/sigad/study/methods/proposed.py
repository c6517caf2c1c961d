"""The proposed selective test: conditions on the selection (Niihori et al. 2025, Theorem 4.1). Exact."""

from dataclasses import dataclass

from sigad.inference.result import TOLERANCE, Decision
from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import PValues, Regions
from sigad.study.settings import setting


@dataclass(frozen=True)
class Proposed(Method[Regions]):
    """Selective p-values."""

    label = "proposed"
    needs = frozenset({"regions"})

    decide_at: float = setting(
        0,
        "stop the search when p is known to be above or below this level; 0: when p is known",
        low=0,
        below=1,
        shown=False,
    )

    def pvalues(self, problems: Regions, streams) -> PValues:
        return problems.selective(tolerance=Decision(self.decide_at) if self.decide_at else TOLERANCE)

    @property
    def decides(self) -> float | None:
        return self.decide_at or None

    def seconds(self, cost: Cost) -> float:
        # A decision takes about half of the search.
        return cost.draw + (0.5 if self.decide_at else 1.0) * cost.search
