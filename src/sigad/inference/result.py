"""What a selective test returns."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigad.inference.region import Region

TESTED = "tested"
NOT_SELECTED = "not_selected"
FAILED = "failed"


@dataclass(frozen=True)
class TestResult:
    """The result of one selective test.

    Attributes
    ----------
    status : ``"tested"``, or ``"not_selected"`` when the detector found no anomaly, so that there is nothing to test.
    statistic : observed test statistic, in units of its standard deviation; NaN when not selected.
    p_value : selective p-value; NaN when not selected.
    p_low, p_high : bounds that bracket the p-value of an exhaustive search; equal to ``p_value`` when it is exact.
    region : (m, 2) truncation region: intervals of z, the statistic's value along the line, that lead to the same
        selection.
    selection : what the detector selected, in the vocabulary of the test.
    n_pieces : number of linear pieces of the detector along the line that were looked at.
    seconds : wall time.
    """

    __test__ = False  # not a test case of pytest

    status: str
    statistic: float
    p_value: float
    p_low: float
    p_high: float
    region: Region
    selection: Any
    n_pieces: int
    seconds: float


@dataclass(frozen=True)
class BatchResult:
    """The results of B tests, as arrays; ``results[b]`` and iteration give each one as a :class:`TestResult`.

    ``status`` (B,) of str: also ``"failed"`` where one problem of a batch has no p-value, because its selection holds
    at the observed point only or numbers left their guaranteed accuracy (alone, it raises NumericalError).
    ``statistic``, ``p_value``, ``p_low``, ``p_high`` (B,), ``region`` (B, m, 2) padded with [inf, inf], ``selection``
    a sequence of B selections, ``n_pieces`` (B,) of int, ``seconds`` (B,).
    """

    status: NDArray[np.str_]
    statistic: NDArray[np.float64]
    p_value: NDArray[np.float64]
    p_low: NDArray[np.float64]
    p_high: NDArray[np.float64]
    region: NDArray[np.float64]
    selection: Any
    n_pieces: NDArray[np.int64]
    seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, b: int) -> TestResult:
        region = self.region[b]
        return TestResult(
            status=str(self.status[b]),
            statistic=float(self.statistic[b]),
            p_value=float(self.p_value[b]),
            p_low=float(self.p_low[b]),
            p_high=float(self.p_high[b]),
            region=region[region[:, 0] < region[:, 1]],
            selection=self.selection[b],
            n_pieces=int(self.n_pieces[b]),
            seconds=float(self.seconds[b]),
        )

    def __iter__(self) -> Iterator[TestResult]:
        return (self[b] for b in range(len(self)))
