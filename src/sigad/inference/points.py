"""A statistic that can only be a point of a lattice: weights, and probabilities of which a part is unknown."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError
from sigad.inference.ties import EPS
from sigad.inference.truncated import Alternative, Null, log_density, log_mass, support

NEGLIGIBLE = 1e-12
"""Points are laid out until all that are beyond weigh less than this share of the observed one."""

MOST = 10_000_000
"""More points than this are refused."""


@dataclass(frozen=True, eq=False)
class Points:
    """The lattice of a statistic, and what is known of it.

    Attributes
    ----------
    statistic, null, spacing : of the lattice.
    index : (n,) whole numbers i in order, z = statistic + spacing * i. All points that are further out on either side,
        which are never asked for, are the first and the last entry, -inf and inf.
    bounded : on either side, whether there are no points further out (in a cell, or where the null law ends).
    known, inside : (n,) bool, where the answer is known, and where it is known that the point lies in the truncation
    set.
    """

    statistic: float
    null: Null
    spacing: float
    index: NDArray[np.float64] = field(repr=False)
    bounded: tuple[bool, bool]
    known: NDArray[np.bool_] = field(repr=False)
    inside: NDArray[np.bool_] = field(repr=False)

    @classmethod
    def of(cls, statistic: float, null: Null, spacing: float, cell: float | None = None, tail: float = 1.0) -> "Points":
        """Nothing known yet of statistic + spacing * i, of all i or of those in [c * cell, (c + 1) * cell); at least
        those that are :meth:`central` for this tail are not further out."""
        low, high = support(null)
        if cell is not None:
            start = np.floor(statistic / cell) * cell
            # Short of the end of the cell by what a difference from the statistic shows, also where the end is 0.
            before = min(np.nextafter(start + cell, start), start + (1 - EPS) * cell)
            low, high = max(low, start), min(high, before)
        counts = [_count(statistic, null, step, end, tail) for step, end in ((-spacing, low), (spacing, high))]
        if sum(counts) > MOST:
            raise InvalidInputError(f"a spacing of {spacing} makes more than {MOST} points: choose a larger one")
        index = np.concatenate([[-np.inf], np.arange(-counts[0], counts[1] + 1.0), [np.inf]])
        known, inside = np.zeros((2, len(index)), bool)
        return cls(statistic, null, spacing, index, (np.isfinite(low), np.isfinite(high)), known, inside)

    def thinned(self, step: int) -> "Points":
        """Every step-th point, the statistic among them."""
        kept = ~np.isfinite(self.index)
        kept[1:-1] = self.index[1:-1] % step == 0
        known, inside = self.known[kept], self.inside[kept]
        return Points(
            self.statistic, self.null, self.spacing * step, self.index[kept] / step, self.bounded, known, inside
        )

    @property
    def z(self) -> NDArray[np.float64]:
        """The points on the line, (n,)."""
        return self.statistic + self.spacing * self.index

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which of them is the statistic, (n,)."""
        return self.index == 0

    def log_weights(self, mean: float = 0.0) -> NDArray[np.float64]:
        """Log densities (n,), of a normal statistic with this mean; for all points further out, a bound on their
        sum."""
        z = self.z - mean
        low, high = (
            -np.inf if bounded else _log_beyond(end, self.null, step)
            for bounded, end, step in zip(self.bounded, z[[1, -2]], (-self.spacing, self.spacing), strict=True)
        )
        return np.concatenate([[low], log_density(z[1:-1], self.null), [high]])

    def heaviest_first(self, which: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Positions of the points among ``which`` that can be asked for and are not known; the statistic goes first."""
        weights = np.where(self.own, np.inf, self.log_weights())
        left = np.flatnonzero(which & ~self.known & np.isfinite(self.index))
        return left[np.argsort(-weights[left], kind="stable")]

    def central(self, tail: float) -> NDArray[np.bool_]:
        """Which points have more than this probability of the null law on either side; T does not matter."""
        z, ends = self.z, np.log(tail)
        return (log_mass(-np.inf, z, self.null) > ends) & (log_mass(z, np.inf, self.null) > ends)

    def probability(self, event: NDArray[np.bool_], own: float, mean: float = 0.0) -> tuple[float, float]:
        """Log of the smallest and the largest probability that the statistic is a point of the event (n,), given that
        it is in the truncation set, over all that this set can still turn out to be.

        Of the observed point, which is in it, the share ``own`` counts to the event and the rest to its complement.
        """
        weights, others = self.log_weights(mean), ~self.own
        observed = weights[self.own].item()

        def total(which: NDArray[np.bool_]) -> float:
            return np.logaddexp.reduce(weights[which & others])

        with np.errstate(divide="ignore"):
            event_in = np.logaddexp(total(self.inside & event), observed + np.log(own))
            rest_in = np.logaddexp(total(self.inside & ~event), observed + np.log1p(-own))
        event_most = np.logaddexp(event_in, total(~self.known & event))
        rest_most = np.logaddexp(rest_in, total(~self.known & ~event))
        return -np.logaddexp(0.0, rest_most - event_in), -np.logaddexp(0.0, rest_in - event_most)

    def pvalue_bounds(self, alternative: Alternative, share: float | None = None) -> tuple[float, float]:
        """Bounds on the p-value. The observed point counts wholly, or in part by a share that was drawn uniformly."""
        z, t = self.z, self.statistic
        events = {
            "greater": [z >= t],
            "less": [z <= t],
            "two-sided": [np.abs(z) >= abs(t)],
            "equal-tailed": [z >= t, z <= t],
        }[alternative]
        owns = (1.0, 1.0) if share is None else (share, 1.0 - share)
        tails = [self.probability(event, own) for event, own in zip(events, owns, strict=False)]
        low, high = (min(1.0, len(events) * float(np.exp(min(log_p)))) for log_p in zip(*tails, strict=True))
        return low, high

    def parted(self, groups: NDArray, level: float, tilt: float) -> tuple[float, float]:
        """What conditioning on a part of the lattice leaves, on average over where on it the statistic may lie.

        Points that are not known to be in the truncation set do not count.

        Parameters
        ----------
        groups : (n,) the part in which each point lies, such as a coarser lattice or a cell, as whole numbers.
        level, tilt : of a test, and of its alternative: the weight of each point z is multiplied by cosh(tilt z); a
            normal statistic then has the mean tilt or minus tilt, by chance.

        Returns
        -------
        The probability under the alternative that the conservative two-sided p-value is at most ``level``; and the mean
        weight of the observed point in its part under the null hypothesis.
        """
        z, weights = np.abs(self.z[self.inside]), self.log_weights()[self.inside]
        if not len(z):
            return 0.0, 1.0
        null = np.exp(weights - np.logaddexp.reduce(weights))
        tilted = weights + np.logaddexp(tilt * z, -tilt * z)
        tilted = np.exp(tilted - np.logaddexp.reduce(tilted))
        group = np.unique(groups[self.inside], return_inverse=True)[1]
        # Outermost first within each part: a point's p-value is the share of its part that is not further in.
        order = np.lexsort((-z, group))
        begins = np.flatnonzero(np.diff(group[order], prepend=-1))
        total = np.add.reduceat(null[order], begins)[group[order]]
        summed = np.cumsum(null[order])
        before = (summed[begins] - null[order][begins])[group[order]]
        rejected = summed - before <= level * total
        with np.errstate(invalid="ignore"):
            own = np.nansum(np.square(null[order]) / total)
        return float(tilted[order][rejected].sum()), float(own)

    def mean_interval(self, level: float) -> tuple[float, float]:
        """Confidence interval for the mean of a normal statistic: the means that the conservative equal-tailed test
        does not reject, with all that is not known at its worst."""
        z, t, goal = self.z, self.statistic, np.log((1 - level) / 2)
        lower = _crossing(lambda mean: self.probability(z >= t, 1.0, mean)[1] - goal, t)
        upper = -_crossing(lambda minus: self.probability(z <= t, 1.0, -minus)[1] - goal, -t)
        return lower, upper


def _count(statistic: float, null: Null, step: float, end: float, tail: float) -> int:
    """How many points there are from the statistic to the end of the line, or until all others are negligible and have
    no more than this probability of the null law."""
    if np.isfinite(end):
        return int(min((end - statistic) / step, 2.0 * MOST))
    target, count = log_density(statistic, null) + np.log(NEGLIGIBLE), 1
    while count <= MOST:
        z = statistic + count * step
        outside = (-np.inf, z) if step < 0 else (z, np.inf)
        if _log_beyond(z, null, step) <= target and log_mass(*outside, null) <= np.log(tail):
            break
        count *= 2
    return count


def _log_beyond(z: float, null: Null, step: float) -> float:
    """Log of a bound on f(z + step) + f(z + 2 step) + ...: the density f of a law on an infinite line is log-concave,
    so that the terms fall at least as fast as a geometric series; infinite as long as they rise."""
    first, second = log_density(z + step * np.array([1.0, 2.0]), null)
    if first == -np.inf:
        return first
    return first - np.log(-np.expm1(second - first)) if second < first else np.inf


def _crossing(increasing, start: float, largest: float = 1e4) -> float:
    """Where an increasing function becomes positive. No further than ``largest`` from the start: -inf if it is positive
    already there, and the last point tried if it is not yet."""
    from scipy import optimize  # slow to import, and needed here only

    way, near, step = (1.0 if increasing(start) < 0 else -1.0), start, 1.0
    while step <= largest:
        far = start + way * step
        if way * increasing(far) >= 0:
            return float(optimize.brentq(increasing, min(near, far), max(near, far), xtol=1e-10))
        near, step = far, 2 * step
    return near if way > 0 else -np.inf
