"""The conformalised selective test: the selective p-value takes the place of the score.

Ranked as the selective test ranks, and valid given detection whatever the noise is. Takes a selective test for each
detected calibration normal. One without a selective p-value (ties) does not count, as a trial without one does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigad.errors import NumericalError
from sigad.inference.conformal import detection_conditional
from sigad.seeds import Streams
from sigad.study.kinds import Cost
from sigad.study.methods.conformal import Conformal
from sigad.study.problems import Normals, PValues, Regions


@dataclass(frozen=True)
class ConformalSelective(Conformal):
    """The rank of the selective p-value among those of the detected calibration normals, small ones first."""

    label = "conformal, selective p"
    needs = frozenset({"normals", "regions"})

    def pvalues(self, problems: Normals, streams: Sequence[Streams]) -> PValues:
        own = problems.selective().p_value
        p = []
        for value, others in zip(own, problems.normals(streams, self.normals), strict=True):
            found = others[np.flatnonzero(others.selected)]
            p.append(float(detection_conditional(value, _selective(found), extreme="small").p_value))
        return PValues.exact(np.array(p), self.normals)

    def seconds(self, cost: Cost) -> float:
        return super().seconds(cost) + (1 + self.normals) * cost.search


def _selective(problems: Regions) -> NDArray[np.float64]:
    """The selective p-values of those problems that have one."""
    if not len(problems):
        return np.empty(0)
    try:
        return problems.selective().p_value
    except NumericalError:
        if len(problems) == 1:
            return np.empty(0)
    # Rare: halving the batch isolates those that have none.
    middle, order = len(problems) // 2, np.arange(len(problems))
    return np.concatenate([_selective(problems[order[:middle]]), _selective(problems[order[middle:]])])
