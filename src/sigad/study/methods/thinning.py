"""Gaussian thinning: the detector sees the data with more noise, the test an independent version of them.

Exact for a known covariance. It makes detections of its own: where it finds nothing in the noisier data there is no
test, whatever the detector found in the data. A normal instance counts as a true null hypothesis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sigad.seeds import Streams
from sigad.study.kinds import Cost
from sigad.study.methods import Method
from sigad.study.problems import PValues, Thinnable
from sigad.study.settings import setting


@dataclass(frozen=True)
class Thinning(Method[Thinnable]):
    """Tail probabilities of the statistic of the version that the detector has not seen."""

    label = "thinning"
    needs = frozenset({"thinning"})
    needs_selection = False
    of_instance = True
    selects = True

    tau: float = setting(0.5, "noise that is added to what the detector sees, relative to the noise", above=0)

    def pvalues(self, problems: Thinnable, streams: Sequence[Streams]) -> PValues:
        return problems.thinned(streams, self.tau)

    def seconds(self, cost: Cost) -> float:
        return cost.draw + cost.evaluation
