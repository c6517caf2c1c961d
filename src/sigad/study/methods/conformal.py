"""Conformal p-values of the score, given detection: exact whatever the noise is, if normals are exchangeable.

The null hypothesis is "the instance is one of the normals", not that of the selective tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sigad.inference.conformal import detection_conditional
from sigad.seeds import Streams
from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import Normals, PValues
from sigad.study.settings import setting


@dataclass(frozen=True)
class Conformal(Method[Normals]):
    """The rank of the score among those of the detected calibration normals."""

    label = "conformal"
    needs = frozenset({"normals"})
    of_instance = True

    normals: int = setting(500, "normal instances that calibrate, or all there are if they are fewer", low=1)

    def pvalues(self, problems: Normals, streams: Sequence[Streams]) -> PValues:
        p = [
            float(detection_conditional(score, others.score, calibration_detected=others.selected).p_value)
            for score, others in zip(problems.score, problems.normals(streams, self.normals), strict=True)
        ]
        return PValues.exact(np.array(p), self.normals)

    def seconds(self, cost: Cost) -> float:
        return cost.draw + self.normals * cost.evaluation
