"""Where on the line does a training instance come closer than the moving neighbour? In closed form.

With r = z/T, the test instance moves as s/2 + r delta/2 and its k-th neighbour j as s/2 - r delta/2; their distance is
d_j(r) = r |delta|. With c_i = s/2 - x_i, another instance i is at distance d_i(r) = |c_i + r delta/2|. So

    g(r) = d_i(r) - lam d_j(r)

is convex (l1, l_inf; for l2 the difference of the squares is a quadratic). For lam > 1/2 it falls everywhere: i is
closer than lam times the distance of j exactly for r > rho_i(lam), the only crossing. For lam <= 1/2 it is closer on
one interval of r, possibly empty or unbounded.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.errors import NumericalError
from sigad.knn.detection import Detections, Metric, norm

# A monotone Newton iteration on a convex piecewise-linear function of one variable ends after at most one step per
# linear piece; in practice after a handful.
_MAX_STEPS = 10_000


class Squares(NamedTuple):
    """Squared distances along the lines, d_i^2 = a + b r + (|delta| r/2)^2: a = |c_i|^2, b = c_i . delta, (B, n)."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]


@dataclass(frozen=True)
class Crossings:
    """The distances of all instances along the lines of B problems.

    ``centre`` (B, n, D) holds c_i = s/2 - x_i as the *vector from the instance to the midpoint*, ``half`` (B, D)
    delta/2, ``length`` (B,) |delta|, ``index`` (B,) the moving neighbour j. ``squares`` of the distances for l2, None
    for the other metrics.
    """

    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    length: NDArray[np.float64]
    index: NDArray[np.int64]
    metric: Metric
    squares: Squares | None

    @classmethod
    def of(cls, detections: Detections) -> "Crossings":
        """Set up the lines through the observed test instances and their selected neighbours."""
        rows = np.arange(len(detections))
        neighbour = detections.f_train[rows, detections.index]
        delta = detections.f_test - neighbour
        centre = 0.5 * (detections.f_test + neighbour)[:, None, :] - detections.f_train
        l2 = detections.metric == "l2"
        return cls(
            centre=centre,
            half=0.5 * delta,
            length=norm(delta, detections.metric),
            index=detections.index,
            metric=detections.metric,
            squares=Squares(np.square(centre).sum(axis=-1), (centre * delta[:, None, :]).sum(axis=-1)) if l2 else None,
        )

    def __getitem__(self, which: NDArray) -> "Crossings":
        squares = None if self.squares is None else Squares(self.squares.a[which], self.squares.b[which])
        return Crossings(
            self.centre[which], self.half[which], self.length[which], self.index[which], self.metric, squares
        )

    def single(self, lam: NDArray) -> NDArray[np.float64]:
        """rho_i(lam), (B, n), for lam (B,) > 1/2: instance i is closer than lam d_j iff r > rho_i. For j itself inf."""
        if self.squares is not None:
            a, b = self.squares
            lead = ((lam - 0.5) * (lam + 0.5) * self.length**2)[:, None]
            q = np.square(b)
            q += 4 * lead * a
            np.sqrt(q, out=q)
            q += np.abs(b)
            # Either form of the root is free of cancellation for its sign of b; q = 0 means c_i = 0, closer at once.
            with np.errstate(divide="ignore", invalid="ignore"):
                rho = np.where(b > 0, q / (2 * lead), 2 * a / q)
            rho[q == 0] = 0.0
        else:
            rho = self._newton_from_left(lam)
        rho[np.arange(len(rho)), self.index] = np.inf
        return rho

    def interval(self, lam: NDArray) -> NDArray[np.float64]:
        """The r >= 0 at which instance i is closer than lam d_j, (B, n, 2), for lam (B,) <= 1/2; [inf, inf] if none."""
        if self.squares is not None:
            result = self._quadratic_interval(*self.squares, lam)
        else:
            left = self._newton_from_left(lam)
            result = np.stack([left, self._newton_from_right(lam)], axis=-1)
        result[~(result[..., 0] < result[..., 1])] = np.inf
        result[np.arange(len(result)), self.index] = np.inf
        return result

    def _quadratic_interval(self, a: NDArray, b: NDArray, lam: NDArray) -> NDArray:
        lead = np.broadcast_to(((0.5 - lam) * (0.5 + lam) * self.length**2)[:, None], a.shape)
        discriminant = b**2 - 4 * lead * a
        # g can only be negative for r > 0 if b < 0: both ends have the sign of -b.
        some = (b < 0) & (discriminant > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            q = np.sqrt(np.maximum(discriminant, 0)) - b
            result = np.stack([2 * a / q, np.where(lead > 0, q / (2 * lead), np.inf)], axis=-1)
        result[~some] = np.inf
        return result

    def _tangent(self, r: NDArray, lam: NDArray) -> tuple[NDArray, NDArray]:
        """Intercept and slope of the linear piece of g at r, (B, n): g = intercept + slope r there.

        At a kink, the piece to the right of it. Rounded signs do not matter: every piece is a lower bound of g.
        """
        half = self.half[:, None, :]
        v = self.centre + r[..., None] * half
        sign = self._sign(v)
        if self.metric == "l1":
            intercept, slope = (sign * self.centre).sum(axis=-1), (sign * half).sum(axis=-1)
        else:
            size = np.abs(v)
            # Among the coordinates that attain the maximum, the one that grows fastest.
            growth = np.where(size == size.max(axis=-1, keepdims=True), sign * half, -np.inf)
            best = growth.argmax(axis=-1)[..., None]
            intercept = np.take_along_axis(sign * self.centre, best, axis=-1)[..., 0]
            slope = np.take_along_axis(growth, best, axis=-1)[..., 0]
        return intercept, slope - (lam * self.length)[:, None]

    def linear_forms(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Linear functions alpha + beta r, (B, n) each, in whose order the distances d_i stand, and bounds (B,) of the
        r around 1 on which they do. The entries of j have no meaning.

        For l2 they are d_i^2 - (|delta| r / 2)^2, everywhere; else d_i itself, on its linear piece.
        """
        b, n, _ = self.centre.shape
        if self.squares is not None:
            return *self.squares, np.zeros(b), np.full(b, np.inf)
        alpha, beta = self._tangent(np.ones((b, n)), np.zeros(b))
        half = self.half[:, None, :]
        if self.metric == "l1":  # no coordinate changes its sign
            sign = self._sign(self.centre + half)
            lower, upper = solve_linear(-sign * self.centre, -sign * half)
        else:  # no other coordinate, of either sign, overtakes the largest
            ends = [
                solve_linear(sign * self.centre - alpha[..., None], sign * half - beta[..., None])
                for sign in (1.0, -1.0)
            ]
            lower, upper = np.maximum(ends[0][0], ends[1][0]), np.minimum(ends[0][1], ends[1][1])
        lower[np.arange(b), self.index], upper[np.arange(b), self.index] = 0.0, np.inf
        return alpha, beta, lower.max(axis=(1, 2)), upper.min(axis=(1, 2))

    def _sign(self, v: NDArray) -> NDArray:
        """Signs of the coordinates v = c_i + r delta/2 just to the right of r."""
        return np.where(v != 0, np.sign(v), np.sign(self.half)[:, None, :])

    def _newton_from_left(self, lam: NDArray) -> NDArray:
        """The first r >= 0 from which on g < 0, (B, n); inf if there is none."""
        r = np.zeros(self.centre.shape[:2])
        active = np.ones(r.shape, dtype=bool)
        for _ in range(_MAX_STEPS):
            intercept, slope = self._tangent(np.where(np.isfinite(r), r, 0.0), lam)
            with np.errstate(divide="ignore", invalid="ignore"):
                root = np.where(slope < 0, -intercept / slope, np.inf)
            # Where g already is negative or zero at r = 0 the tangent's root lies to the left, and r stays.
            step = active & (root > r)
            # A rising or flat piece with g < 0 behind it: r itself is the end point (only possible at r = 0).
            step &= ~((slope >= 0) & (intercept + slope * np.where(np.isfinite(r), r, 0.0) < 0))
            r = np.where(step, root, r)
            active = step & np.isfinite(r)
            if not active.any():
                return r
        raise NumericalError("the iteration for a crossing of two distances did not end")

    def _newton_from_right(self, lam: NDArray) -> NDArray:
        """The largest r up to which g < 0, (B, n), for lam <= 1/2; -inf if g is nowhere negative."""
        intercept, slope = self._last_piece(lam)
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.where(slope > 0, -intercept / slope, np.where(intercept < 0, np.inf, -np.inf))
        r[r <= 0] = -np.inf
        active = np.isfinite(r)
        for _ in range(_MAX_STEPS):
            intercept, slope = self._tangent(np.where(active, r, 0.0), lam)
            with np.errstate(divide="ignore", invalid="ignore"):
                root = np.where(slope > 0, -intercept / slope, -np.inf)
            positive = intercept + slope * np.where(active, r, 0.0) > 0
            step = active & positive & (root < r)
            r = np.where(step, root, r)
            r[r <= 0] = -np.inf
            active = step & np.isfinite(r)
            if not active.any():
                return r
        raise NumericalError("the iteration for a crossing of two distances did not end")

    def _last_piece(self, lam: NDArray) -> tuple[NDArray, NDArray]:
        """Intercept and slope of g for r towards infinity, (B, n)."""
        half = self.half[:, None, :]
        if self.metric == "l1":
            intercept = np.where(half != 0, np.sign(half) * self.centre, np.abs(self.centre)).sum(axis=-1)
        else:
            largest = np.abs(half) == np.abs(half).max(axis=-1, keepdims=True)
            intercept = np.where(largest, np.sign(half) * self.centre, -np.inf).max(axis=-1)
        return intercept, np.broadcast_to(((0.5 - lam) * self.length)[:, None], intercept.shape)


def solve_linear(alpha: NDArray, beta: NDArray) -> tuple[NDArray, NDArray]:
    """The r >= 0 with alpha + beta r <= 0, a condition that holds at r = 1: lower and upper bounds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        root = -alpha / beta
    return np.where(beta < 0, np.maximum(root, 0.0), 0.0), np.where(beta > 0, root, np.inf)
