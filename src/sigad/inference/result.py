"""What a selective test returns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_number
from sigad.errors import InvalidInputError
from sigad.inference.region import EMPTY, Region

TESTED = "tested"
NOT_SELECTED = "not_selected"
FAILED = "failed"


class Tolerance(NamedTuple):
    """When the bounds on a p-value are close enough: ``p_high - p_low <= max(atol, rtol * p_high)``.

    An absolute tolerance alone would make small p-values meaningless for multiple testing.
    """

    atol: float = 1e-6
    rtol: float = 0.01

    @classmethod
    def of(cls, tolerance: "Tolerance | Decision | float") -> "Tolerance | Decision":
        """A tolerance from a number, which is absolute, or from itself; checked. A decision is one, too."""
        if isinstance(tolerance, Decision):
            if not 0 < real_number(tolerance.level, "the level of a decision") < 1:
                raise InvalidInputError(f"the level of a decision must lie between 0 and 1, not {tolerance.level!r}")
            return tolerance
        try:
            atol, rtol = tolerance if isinstance(tolerance, tuple) else (float(tolerance), 0.0)
            if 0 <= atol < 1 and 0 <= rtol < 1:
                return cls(float(atol), float(rtol))
        except (TypeError, ValueError):
            pass
        raise InvalidInputError(
            f"tolerance must be a number in [0, 1), or Tolerance(atol, rtol) of two such numbers, not {tolerance!r}"
        )

    def met(self, p_low: ArrayLike, p_high: ArrayLike) -> NDArray[np.bool_]:
        """Whether bounds are close enough."""
        return np.subtract(p_high, p_low) <= np.maximum(self.atol, self.rtol * np.asarray(p_high))


TOLERANCE = Tolerance()


@dataclass(frozen=True)
class Decision:
    """A tolerance for those who ask no more than whether ``p <= level``: the bounds are close enough when they tell."""

    level: float

    def met(self, p_low: ArrayLike, p_high: ArrayLike) -> NDArray[np.bool_]:
        """Whether the bounds lie on one side of the level."""
        return (np.asarray(p_low) > self.level) | (np.asarray(p_high) <= self.level)


class Found(Protocol):
    """What an engine found along the line."""

    @property
    def p_value(self) -> float: ...

    @property
    def p_low(self) -> float: ...

    @property
    def p_high(self) -> float: ...

    @property
    def region(self) -> Region: ...

    @property
    def n_evaluations(self) -> int: ...

    def confidence_interval(self, level: float = ...) -> tuple[float, float]:
        """Selective confidence interval for the mean of the statistic (normal null)."""
        ...


class ArraysCompare:
    """Equality of dataclasses that hold arrays: the same fields, NaN equal to NaN."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _same(self, other)

    __hash__ = None


def _same(a: Any, b: Any) -> bool:
    if is_dataclass(a) and type(a) is type(b):
        return all(_same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, (tuple, list)) and type(a) is type(b):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (float, np.ndarray, np.generic)):
        a, b = np.asarray(a), np.asarray(b)
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f"))
    return bool(a == b)


@dataclass(frozen=True, eq=False, repr=False)
class TestResult(ArraysCompare):
    """The result of one selective test.

    Attributes
    ----------
    status : ``"tested"``; ``"not_selected"`` when the detector found no anomaly, so that there is nothing to test; of a
        batch also ``"failed"``, see :class:`BatchResult`.
    statistic : observed test statistic, in units of its standard deviation; NaN when not selected.
    p_value : selective p-value; NaN when not selected.
    p_low, p_high : bounds that bracket the p-value of an exhaustive search; equal to ``p_value`` when it is exact.
    region : (m, 2) truncation region: intervals of z, the statistic's value along the line, that lead to the same
        selection; by the lattice engine, the points [z, z] that are known to.
    selection : what the detector selected, in the vocabulary of the test.
    n_evaluations : how often the detector was looked at along the line: linear pieces for the exact engine.
    seconds : wall time.
    reason : why it failed, otherwise empty.
    """

    __test__ = False  # not a test case of pytest

    status: str
    statistic: float
    p_value: float
    p_low: float
    p_high: float
    region: Region
    selection: Any
    n_evaluations: int
    seconds: float
    reason: str = field(default="", kw_only=True)

    def __repr__(self) -> str:
        if self.status != TESTED:
            return f"{type(self).__name__}({self.status}{self.reason and ': '}{self.reason})"
        bounds = "" if self.p_low == self.p_high else f" in [{self.p_low:.4g}, {self.p_high:.4g}]"
        part = "interval" if (self.region[:, 0] < self.region[:, 1]).any() else "lattice point"
        intervals = f"{len(self.region)} {part}{'' if len(self.region) == 1 else 's'}"
        lines = [
            f"p = {self.p_value:.4g}{bounds}",
            f"statistic {self.statistic:.4g}, truncation region of {intervals}",
            f"selection {self.selection}",
            *self._details(),
            f"{self.n_evaluations} evaluations, {self.seconds:.3g} s",
        ]
        return f"{type(self).__name__}({self.status})\n  " + "\n  ".join(lines)

    @classmethod
    def not_selected(cls, selection: Any, seconds: float, **more: Any) -> Self:
        """The result where the detector found nothing: numbers are NaN, the region is empty; ``more`` fields of a
        child."""
        nan = float("nan")
        return cls(NOT_SELECTED, nan, nan, nan, nan, EMPTY, selection, 0, seconds, **more)

    @classmethod
    def of_search(cls, found: Found, statistic: float, selection: Any, seconds: float, **more: Any) -> Self:
        """The result of a test by what an engine found along the line; ``more`` fields of a child."""
        p = found.p_value, found.p_low, found.p_high
        return cls(TESTED, statistic, *p, found.region, selection, found.n_evaluations, seconds, **more)

    def _details(self) -> list[str]:
        """Lines that a child adds when printed."""
        return []

    def to_frame(self):
        """One row of a pandas DataFrame: every number of the result, not the region nor the selection's arrays."""
        import pandas as pd

        numbers = {f.name: getattr(self, f.name) for f in fields(self)}
        return pd.DataFrame([{k: v for k, v in numbers.items() if isinstance(v, (str, bool, int, float))}])


@dataclass(frozen=True, eq=False, repr=False)
class BatchResult(ArraysCompare):
    """The results of B tests, as arrays; ``results[b]`` and iteration give each one as a :class:`TestResult`.

    ``status`` (B,) of str: also ``"failed"`` where one problem of a batch has no p-value, because the observation is a
    tie (:mod:`sigad.inference.ties`) or numbers left their guaranteed accuracy (alone, it raises NumericalError); then
    ``reason`` (B,) of str says why, and is empty otherwise.
    ``statistic``, ``p_value``, ``p_low``, ``p_high`` (B,), ``region`` (B, m, 2) padded with [inf, inf], ``selection``
    a sequence of B selections, ``n_evaluations`` (B,) of int, ``seconds`` (B,).
    """

    status: NDArray[np.str_]
    statistic: NDArray[np.float64]
    p_value: NDArray[np.float64]
    p_low: NDArray[np.float64]
    p_high: NDArray[np.float64]
    region: NDArray[np.float64]
    selection: Any
    n_evaluations: NDArray[np.int64]
    seconds: NDArray[np.float64]
    reason: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.status)

    def __repr__(self) -> str:
        kinds, counts = np.unique(self.status, return_counts=True)
        found = ", ".join(f"{count} {kind}" for kind, count in zip(kinds, counts, strict=True))
        return f"BatchResult({len(self)} problems: {found})"

    def __getitem__(self, b: int) -> TestResult:
        region = self.region[b]
        return TestResult(
            status=str(self.status[b]),
            statistic=float(self.statistic[b]),
            p_value=float(self.p_value[b]),
            p_low=float(self.p_low[b]),
            p_high=float(self.p_high[b]),
            region=region[region[:, 0] < np.inf],
            selection=self.selection[b],
            n_evaluations=int(self.n_evaluations[b]),
            seconds=float(self.seconds[b]),
            reason=str(self.reason[b]),
        )

    def __iter__(self) -> Iterator[TestResult]:
        return (self[b] for b in range(len(self)))

    def to_frame(self):
        """A pandas DataFrame with one row per problem: every number, not the regions."""
        import pandas as pd

        return pd.concat([result.to_frame() for result in self], ignore_index=True)
