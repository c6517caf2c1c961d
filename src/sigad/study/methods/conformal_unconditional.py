"""Conformal p-values per inspected instance: undetected calibration normals count as never as extreme.

Applied to every trial, detected or not: of all inspected normals the share alpha is rejected at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sigad.inference.conformal import unconditional
from sigad.seeds import Streams
from sigad.study.methods.conformal import Conformal
from sigad.study.problems import Normals, PValues


@dataclass(frozen=True)
class ConformalUnconditional(Conformal):
    """The rank of the score among those of all calibration normals; 1 where nothing was detected."""

    label = "conformal, per inspected"
    needs_selection = False

    def pvalues(self, problems: Normals, streams: Sequence[Streams]) -> PValues:
        parts = zip(problems.score, problems.selected, problems.normals(streams, self.normals), strict=True)
        p = [
            float(unconditional(s, others.score, detected=found, calibration_detected=others.selected).p_value)
            for s, found, others in parts
        ]
        return PValues.exact(np.array(p), self.normals)
