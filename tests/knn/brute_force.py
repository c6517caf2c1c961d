"""The oracle of the region tests: run the detector itself along the line, on a dense grid, and bisect every change."""

import numpy as np


def selection_along(x_test, x_train, j, r, *, candidates, metric, features=None):
    """k and the k-th neighbour that the detector selects at each r, and its score; nothing but the definition."""
    s, delta = x_test + x_train[j], x_test - x_train[j]
    a = s / 2 + r[:, None] * delta / 2
    b = s / 2 - r[:, None] * delta / 2
    train = np.broadcast_to(x_train, (len(r), *x_train.shape)).copy()
    train[:, j] = b
    if features is not None:
        a, train = a @ features.T, train @ features.T
    order = {"l2": 2, "l1": 1, "linf": np.inf}[metric]
    distance = np.linalg.norm(a[:, None, :] - train, ord=order, axis=-1)
    ranking = np.argsort(distance, axis=-1, kind="stable")
    ranked = np.take_along_axis(distance, ranking, axis=-1)
    ks = np.array(candidates)
    with np.errstate(divide="ignore"):
        score = np.log(ranked[:, ks - 1]) - np.log(ks) / a.shape[-1]
    best = score.argmax(axis=-1)
    rows = np.arange(len(r))
    return ks[best], ranking[rows, ks[best] - 1], score[rows, best], ranking


def region(
    x_test, x_train, *, k, threshold, metric="l2", features=None, condition_on_k=True, order=False, top=6.0, points=4000
):
    """Intervals of r in (0, top) with the observed selection, to about 1e-13; j must have been selected at r = 1."""
    candidates = tuple(np.atleast_1d(k))
    find = lambda j, r: selection_along(  # noqa: E731
        x_test, x_train, j, r, candidates=candidates, metric=metric, features=features
    )
    k_obs, j_obs, score, ranking = find(0, np.array([1.0]))
    k_obs, j_obs = k_obs[0], j_obs[0]
    assert score[0] > threshold
    nearest = ranking[0, : candidates[-1]]

    def same(r):
        k_r, j_r, score, ranking = find(j_obs, r)
        result = (j_r == j_obs) & (score > threshold)
        if condition_on_k or order:
            result &= k_r == k_obs
        if order:
            result &= (ranking[:, : candidates[-1]] == nearest).all(axis=-1)
        return result

    grid = np.unique(np.concatenate([np.linspace(0, top, points)[1:], [1.0], np.geomspace(1e-4, top, points // 4)]))
    inside = same(grid)
    change = np.nonzero(inside[1:] != inside[:-1])[0]
    low, high, at_low = grid[change].copy(), grid[change + 1].copy(), inside[change]
    for _ in range(60):
        middle = (low + high) / 2
        keep = same(middle) == at_low if len(middle) else at_low
        low, high = np.where(keep, middle, low), np.where(keep, high, middle)
    ends = (low + high) / 2
    ends = np.concatenate([[0.0] if inside[0] else [], ends, [top] if inside[-1] else []])
    return ends.reshape(-1, 2)
