"""One hypothesis per region: the connected components of the mask, tested given the mask, with one answer for all."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sigad.inference.multiple import benjamini_yekutieli, holm
from sigad.inference.result import NOT_SELECTED, TESTED, ArraysCompare
from sigad.localization.detector import Localization
from sigad.optional import needs

if TYPE_CHECKING:
    from sigad.localization.test import LocalizationResult

LABEL = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}


def connected(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The connected components of a mask (H, W), as masks: pixels are neighbours that share an edge."""
    from scipy import ndimage  # slow to import

    labels, count = ndimage.label(mask)
    return [labels == label for label in range(1, count + 1)]


@dataclass(frozen=True, repr=False, eq=False)
class RegionsResult(ArraysCompare):
    """The tests of all connected components of a mask.

    Given the mask, each p-value is valid and so is each adjusted one: their number is that of the components, not of
    the pixels.

    Attributes
    ----------
    status : ``"tested"``, or ``"not_selected"`` when no pixel was marked.
    selection : what the detector marked.
    regions : one result per component, the strongest evidence first; its ``selection`` is the component's mask, its
        ``confidence_interval`` holds its own effect with the level's probability given the mask (not all of them at
        once).
    holm : (K,) adjusted p-values: reject those <= alpha, and the probability of any false rejection is at most alpha.
    by : (K,) adjusted p-values of Benjamini & Yekutieli: the expected share of false ones among the rejected is at most
        alpha. Both adjust the upper bounds ``p_high`` and hold whatever the dependence of the regions.
    seconds : wall time.
    """

    status: str
    selection: Localization
    regions: tuple["LocalizationResult", ...]
    holm: NDArray[np.float64]
    by: NDArray[np.float64]
    seconds: float

    @classmethod
    def of(cls, selection: Localization, tested: list["LocalizationResult"], seconds: float) -> "RegionsResult":
        """Rank the tests of the components and adjust their p-values."""
        regions = tuple(sorted(tested, key=lambda result: (result.p_high, -abs(result.statistic))))
        p = np.array([result.p_high for result in regions])
        status = TESTED if regions else NOT_SELECTED
        return cls(status, selection, regions, holm(p), benjamini_yekutieli(p), seconds)

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(H, W): the rank of the region that holds a pixel, 1 for the strongest evidence; 0 where nothing is
        marked."""
        labels = np.zeros(self.selection.mask.shape, np.int64)
        for rank, region in enumerate(self.regions, 1):
            labels[region.selection.mask] = rank
        return labels

    @property
    def n_evaluations(self) -> int:
        """How often the detector was looked at, over all regions."""
        return sum(region.n_evaluations for region in self.regions)

    def __repr__(self) -> str:
        if not self.regions:
            return f"RegionsResult({self.status})"
        lines = [
            f"{rank}: {np.count_nonzero(region.selection.mask)} pixels, effect {region.effect:.4g} "
            f"in [{region.confidence_interval[0]:.4g}, {region.confidence_interval[1]:.4g}], "
            f"p = {region.p_value:.4g}, Holm {self.holm[rank - 1]:.4g}, BY {self.by[rank - 1]:.4g}"
            for rank, region in enumerate(self.regions, 1)
        ]
        lines.append(f"{self.n_evaluations} evaluations, {self.seconds:.3g} s")
        return f"RegionsResult({self.status}, {len(self)} regions)\n  " + "\n  ".join(lines)

    def to_frame(self):
        """One row of a pandas DataFrame per region, in their order: where it is, effect, interval and p-values.

        ``row`` and ``column`` are the center of the region, in pixels.
        """
        with needs("pipeline"):
            import pandas as pd

        rows = [
            {
                "region": rank,
                "pixels": int(np.count_nonzero(region.selection.mask)),
                "row": float(np.nonzero(region.selection.mask)[0].mean()),
                "column": float(np.nonzero(region.selection.mask)[1].mean()),
                "effect": region.effect,
                "low": region.confidence_interval[0],
                "high": region.confidence_interval[1],
                "statistic": region.statistic,
                "p_value": region.p_value,
                "p_low": region.p_low,
                "p_high": region.p_high,
                "holm": self.holm[rank - 1],
                "by": self.by[rank - 1],
                "n_evaluations": region.n_evaluations,
                "seconds": region.seconds,
            }
            for rank, region in enumerate(self.regions, 1)
        ]
        return pd.DataFrame(rows)

    def plot(self, *, alpha: float = 0.05):
        """A figure: the score map with the regions outlined, those that Holm rejects at level alpha in colour; and
        their effects with intervals. Returns the matplotlib Figure; nothing is shown or saved."""
        with needs("pipeline"):
            from matplotlib.figure import Figure

        intervals = np.array([region.confidence_interval for region in self.regions]).reshape(-1, 2)
        shown = np.append(intervals[np.isfinite(intervals)], [0.0, *(region.effect for region in self.regions)])
        margin = 0.1 * np.ptp(shown) + 0.1
        ends = shown.min() - margin, shown.max() + margin  # where an unbounded interval leaves the axes
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        picture, effects = figure.subplots(1, 2)
        drawn = picture.imshow(self.selection.scores, cmap="gray", interpolation="nearest")
        figure.colorbar(drawn, ax=picture, shrink=0.8, label="score")
        picture.set(xticks=[], yticks=[], title=f"{len(self)} regions; in colour: rejected (Holm, {alpha:g})")
        for rank, (region, adjusted) in enumerate(zip(self.regions, self.holm, strict=True), 1):
            color = "#D55E00" if adjusted <= alpha else "0.6"
            for column, row in _outline(region.selection.mask):
                picture.plot(column, row, color=color, linewidth=1.4)
            at = np.argwhere(region.selection.mask)[0]
            picture.annotate(str(rank), at[::-1], color=color, fontsize=8, ha="center", va="center", bbox=LABEL)
            effects.plot(np.clip(intervals[rank - 1], *ends), [rank, rank], color=color)
            effects.plot(region.effect, rank, "o", color=color, markersize=4)
        effects.axvline(0, color="0.4", linewidth=0.8, linestyle="--")
        effects.set(xlim=ends, ylim=(max(len(self), 1) + 0.5, 0.5), yticks=range(1, len(self) + 1))
        effects.set(xlabel="effect", ylabel="region")
        return figure


def _outline(mask: NDArray[np.bool_]) -> list[tuple[list[float], list[float]]]:
    """The edges between pixels inside and outside of a mask, as (columns, rows) of line segments."""
    padded = np.pad(mask, 1)
    segments = []
    for row, column in np.argwhere(padded[1:] != padded[:-1]):
        segments.append(([column - 1.5, column - 0.5], [row - 0.5, row - 0.5]))
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        segments.append(([column - 0.5, column - 0.5], [row - 1.5, row - 0.5]))
    return segments
