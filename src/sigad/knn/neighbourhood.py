"""The neighbourhood test: is the test instance different from the mean of its m nearest training instances?

The test against the k-th neighbour conditions on that neighbour's rank, which holds on a sliver of the line only. The
mean of the m nearest, N, hardly moves: what is conditioned on is the *set* N and the detection, and the region is wide.
Which k attained the largest score is not part of the hypothesis, and is not conditioned on.

With v = 1 + 1/m and e = x - mean of x_N, T = ||(v Sigma)^(-1/2) e|| is chi under H0, and along the line, r = z/T,

    x(r) = x + (r - 1) e/v,    x_i(r) = x_i - (r - 1) e/(m v) for i in N,    the others fixed,

so that with s = r - 1, delta_i = x - x_i and E = A e for features A x (A = I by default), in feature space

    d_i(r) = ||delta_i + s E|| for i in N,    d_l(r) = ||delta_l + s E/v|| for the others.

docs/mathematics.md has the derivation. For m = k = 1 it is the test against the nearest neighbour.
"""

import numpy as np
from numpy.typing import NDArray

from sigad.errors import NumericalError, UnsupportedOperationError
from sigad.inference import region as rg
from sigad.inference.ties import require_interior
from sigad.knn.closed_form import resolution
from sigad.knn.detection import Detections, in_range, norm, penalty, require_apart


def members(detections: Detections, m: int) -> NDArray[np.bool_]:
    """Which training instances are the m nearest, (B, n); equal distances are ranked by position, as in detection."""
    distances = norm(detections.f_test[:, None, :] - detections.f_train, detections.metric)
    mth = np.partition(distances, m - 1, axis=-1)[:, m - 1, None]
    closer, tied = distances < mth, distances == mth
    return closer | (tied & (closer.sum(axis=-1, keepdims=True) + np.cumsum(tied, axis=-1) <= m))


def neighbourhood_region(detections: Detections, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Where the m nearest are the same set and the test instance is detected, in closed form.

    Parameters
    ----------
    detections : B selected problems, distances l2.
    inside : (B, n) the m nearest of each (:func:`members`).

    Returns
    -------
    (B, p, 2) regions of r = z/T >= 0, padded with [inf, inf]; each contains r = 1.

    Raises
    ------
    UnsupportedOperationError : for another metric than l2.
    NumericalError : where the observation is a tie (:mod:`sigad.inference.ties`), a test instance is one of its own
        training instances, or one of the m nearest is a copy of another.
    """
    if detections.metric != "l2":
        raise UnsupportedOperationError(
            f"the region of the neighbourhood test has a closed form for l2, not for {detections.metric}: "
            "pass features=torch.nn.Identity() (or a torch.nn.Linear), for which it is searched"
        )
    require_apart(detections)
    require_distinct(detections, inside)
    m = int(inside[0].sum())
    told = resolution(detections, _gather(detections.f_train, inside).mean(axis=1))
    detections = in_range(detections)
    moved = detections.f_test - _gather(detections.f_train, inside).mean(axis=1)  # E, (B, D)
    apart = detections.f_test[:, None, :] - detections.f_train
    square = np.square(apart).sum(axis=-1)
    speed = 1 / (1 + 1 / m)  # of the others, relative to that of the members
    along = np.einsum("bnd,bd->bn", apart, moved) * np.where(inside, 1.0, speed)
    length2 = np.square(moved).sum(axis=-1)
    still = length2 == 0  # the features do not move: nothing changes along the line
    length2 = np.where(still, 1.0, length2)

    lead = (1 - speed) * (1 + speed) * length2
    high = _first_exchange(lead, square, along, inside)
    low = np.maximum(-_first_exchange(lead, square, -along, inside), -1.0)
    region = np.stack([low, high], axis=-1)[:, None, :]
    region = rg.intersection(region, _detected(detections, apart, moved, length2, inside, m)) + 1.0
    if still.any():
        region[still] = np.inf
        region[still, :1] = [[0.0, np.inf]]
    return require_interior(region, 1.0, told)


def require_distinct(detections: Detections, inside: NDArray[np.bool_]) -> None:
    """Raise NumericalError if one of the m nearest (B, n) is a copy of another: the variance of a mean of copies, which
    are not independent, is larger than that of a mean of m instances."""
    nearest = np.sort(_gather(detections.x_train, inside)[:, :, 0], axis=-1)
    for b in np.flatnonzero((nearest[:, 1:] == nearest[:, :-1]).any(axis=-1)):
        instances = detections.x_train[b, inside[b]]
        if len(np.unique(instances, axis=0)) < len(instances):
            raise NumericalError(
                "one of the nearest instances is a copy of another: remove copies of the same instance"
            )


def _gather(instances: NDArray, inside: NDArray[np.bool_]) -> NDArray:
    """The instances (B, n, d) in the mask (B, n), as many in each row: (B, m, d)."""
    b, _, d = instances.shape
    which = np.nonzero(inside)
    return instances[which].reshape(b, -1, d) if b else instances[:, :0]


def _first_exchange(lead: NDArray, square: NDArray, along: NDArray, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The smallest s >= 0, (B,), at which an instance outside of N comes as close as one inside; inf if there is none.

    The squared distances are square + 2 along s, plus a common quadratic: for i inside and l outside they differ by
    lead s^2 + 2 (along_i - along_l) s + (square_i - square_l), which is convex and not positive at 0: each pair has
    one root, and the smallest is what is asked for. The root of any pair bounds it from above; from there on, the
    pair that is most violated has a smaller root, until none is violated. A few steps of O(n) instead of m (n - m)
    roots.
    """
    rows = np.arange(len(square))
    s = np.full(len(square), np.inf)
    if inside.all():
        return s
    # The pair that is violated first as s goes to infinity.
    first = np.where(inside, along, -np.inf).argmax(axis=-1)
    second = np.where(inside, np.inf, along).argmin(axis=-1)
    active = rows
    while len(active):
        i, o = first, second
        half = along[active, i] - along[active, o]
        start = np.minimum(square[active, i] - square[active, o], 0.0)
        root = np.sqrt(half**2 - lead[active] * start)
        q = np.abs(half) + root
        with np.errstate(divide="ignore", invalid="ignore"):
            end = np.where(half > 0, -start / q, q / lead[active])
        end = np.where(q == 0, 0.0, end)
        closer = end < s[active]
        active, end = active[closer], end[closer]
        s[active] = end
        distance = square[active] + 2 * along[active] * end[:, None]
        first = np.where(inside[active], distance, -np.inf).argmax(axis=-1)
        second = np.where(inside[active], np.inf, distance).argmin(axis=-1)
    return s


def _detected(detections: Detections, apart: NDArray, moved: NDArray, length2: NDArray, inside: NDArray, m: int):
    """The s at which the score of some candidate exceeds the threshold, (B, p, 2), provided that N is the set of the m
    nearest there: the k-th nearest is then the k-th nearest of N, or the (k - m)-th nearest of the others."""
    candidates = np.array(detections.candidates)
    parts = []
    for mask, ks, speed in (
        (inside, candidates[candidates <= m], 1.0),
        (~inside, candidates[candidates > m] - m, 1 / (1 + 1 / m)),
    ):
        if not len(ks):
            continue
        here = _gather(apart, mask)
        along = np.einsum("bnd,bd->bn", here, moved) / length2[:, None]
        away = np.square(here - along[..., None] * moved[:, None, :]).sum(axis=-1)  # from the line, squared
        k = ks if mask is inside else ks + m
        radius = np.exp(detections.threshold[:, None] + penalty(k, moved.shape[-1]))
        half = np.sqrt(np.maximum(np.square(radius)[..., None] - away[:, None, :], 0.0) / length2[:, None, None])
        half = np.where(half > 0, half, np.nan)
        near = np.stack([-along[:, None, :] - half, -along[:, None, :] + half], axis=-1) / speed
        near = np.where(np.isnan(near), np.inf, near)
        parts.append(rg.covered_at_least(near, ks))
    undetected = [part[:, i] for part in parts for i in range(part.shape[1])]
    return rg.complement(rg.intersection(*undetected))
