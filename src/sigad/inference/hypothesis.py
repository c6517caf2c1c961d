"""What is tested, as an engine sees it: a statistic on a line, its null law, and the question "is this selected?".

The data move along a line z -> x(z), with x(statistic) as observed. Given the nuisance, the statistic has the law
``null`` on it, truncated to the z at which the detector selects what it selected. An engine turns a hypothesis into a
p-value; it knows no detector, and no detector knows an engine.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_leaves

from sigad.errors import NumericalError
from sigad.inference import region as rg
from sigad.inference.region import Region
from sigad.inference.ties import EPS, SLACK, require_interior
from sigad.inference.truncated import Null, support
from sigad.line import Restriction

FARTHEST = 40.0
"""A linear piece is followed so far beyond statistic and mode, in standard deviations."""


SMALLEST, LARGEST = 2.0**-60, 2.0**60
"""Single precision is for data and features whose largest number lies between these two."""


class Hypothesis(ABC):
    """A hypothesis that a detector selected from the data.

    ``statistic`` : observed, in the units of the line.
    ``null`` : law of the statistic without selection, as :func:`sigad.inference.truncated.truncated_pvalue` takes it.
    """

    statistic: float
    null: Null

    @abstractmethod
    def same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the detector itself, run on the data at the points z (m,) of the line, selects what it selected."""


class Look(NamedTuple):
    """What was seen of the line: ``region`` (m, 2), where the selection is the observed one; ``doubtful`` (m, 2), where
    single precision does not tell; ``pieces``, how many linear pieces were looked at."""

    region: Region
    doubtful: Region
    pieces: int


class PiecewiseHypothesis(Hypothesis):
    """A hypothesis whose detector is piecewise linear along the line, so that its truncation region can be computed."""

    @abstractmethod
    def restriction(self, dtype: torch.dtype) -> Restriction:
        """The detector's scores or features restricted to the line, in a precision."""

    @abstractmethod
    def agreement(self, part: Any) -> tuple[Region, Region]:
        """Where in its window a part selects what was selected, (m, 2); and where single precision does not tell,
        (m, 2): an end point needs no mention, it is looked for again anyway. A part is what the restriction's module
        returns: a :class:`~sigad.line.function.LineFunction`, or a structure of them."""

    def look(self, windows: Region, dtype: torch.dtype) -> Look:
        """What the windows (k, 2), sorted and disjoint, hold."""
        found, doubtful, pieces = [rg.EMPTY], [rg.EMPTY], 0
        for part in self._parts(windows, dtype):
            for seen, new in zip((found, doubtful), self.agreement(part), strict=True):
                seen.append(new)
            pieces += len(_breakpoints(part)) - 1
        return Look(rg.union(*found), rg.union(*doubtful), pieces)

    def region(self, windows: Region) -> Region:
        """The part of the windows (k, 2) on which the selection is the observed one, (m, 2), in double precision."""
        return self.look(windows, torch.float64).region

    def _parts(self, windows: Region, dtype: torch.dtype) -> Iterator[Any]:
        """The restriction on the windows, in parts of bounded memory. Restrictions are kept: each copies the network
        once and learns how many pieces to expect."""
        return self._restriction(dtype).chunks(*windows)

    def _restriction(self, dtype: torch.dtype) -> Restriction:
        kept = self.__dict__.setdefault("_restrictions", {})
        if dtype not in kept:
            made = self.restriction(dtype)
            size = max(float((start + self.statistic * way).abs().max()) for start, way in _moving(made))
            if dtype == torch.float32 and size and not SMALLEST < size < LARGEST:
                raise NumericalError("the data are too small or too large for single precision: use float64 throughout")
            kept[dtype] = made
        return kept[dtype]

    @property
    def resolution(self) -> float:
        """Points z that are closer to the statistic are the same data in double precision."""
        return max(
            EPS * float((start + self.statistic * way).abs().max() / way.abs().max())
            for start, way in _moving(self._restriction(torch.float64))
        )

    def piece(self) -> Region:
        """The linear piece of the detector that holds the statistic, (1, 2), selection or not, within ``reach``.

        Raises NumericalError where the statistic is a breakpoint (to rounding), so that two pieces hold it.
        """
        reach = SLACK * self.resolution
        around = (self.statistic - reach, self.statistic + reach)
        # By a restriction of its own: those kept choose their windows by what they have seen.
        if any(len(_breakpoints(part)) > 2 for part in self.restriction(torch.float64).chunks(around)):
            raise NumericalError("the observation lies between two linear pieces of the detector: values are rounded")
        return np.array([[self._edge(limit) for limit in self.reach]])

    def interior(self, region: Region) -> Region:
        """A region, if the statistic lies inside of it; raises NumericalError on an end point, or outside."""
        return require_interior(region, self.statistic, self.resolution)

    @property
    def reach(self) -> tuple[float, float]:
        """Beyond these two ends the null law has no probability worth a look."""
        low, high = support(self.null)
        middle = np.sqrt(self.null[1]) if self.null[0] == "chi" else 0.0
        return max(low, min(self.statistic, 0.0) - FARTHEST), min(high, max(self.statistic, middle) + FARTHEST)

    def _edge(self, limit: float) -> float:
        """The first breakpoint on the way from the statistic to the limit, or the limit."""
        at, width = self.statistic, 1e-3
        while at != limit:
            stop = max(at - width, limit) if limit < at else min(at + width, limit)
            # The ends of a part are no breakpoints of the detector.
            window = np.array([[min(at, stop), max(at, stop)]])
            inside = np.concatenate([_breakpoints(part)[1:-1] for part in self._parts(window, torch.float64)])
            if len(inside):
                return float(inside.max() if limit < at else inside.min())
            at, width = stop, 4 * width
        return limit


def require_piecewise_linear(
    module: Callable[[torch.Tensor], Any], x: NDArray[np.float64], device: torch.device | str = "cpu"
) -> None:
    """Raise UnsupportedOperationError for a module in double precision that the exact engine cannot take, by a look
    next to one of its inputs x: so that it is an error at the first call, also where nothing was selected."""
    start = torch.as_tensor(x, dtype=torch.float64, device=device)
    Restriction(module, start, torch.ones_like(start), dtype=torch.float64)(0.0, 1e-9)


def _moving(restriction: Restriction) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Start and direction of each input that moves."""
    return [(start, way) for start, way in restriction.inputs if way is not None]


def _breakpoints(part: Any) -> NDArray[np.float64]:
    """All breakpoints of a function, or of a structure of them, sorted."""
    points = [leaf.breakpoints for leaf in tree_leaves(part) if hasattr(leaf, "breakpoints")]
    return (points[0] if len(points) == 1 else torch.unique(torch.cat(points))).cpu().numpy()
