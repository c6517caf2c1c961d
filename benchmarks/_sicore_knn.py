"""The kNN test as a parametric line search with sicore; run by knn.py in an environment of its own.

    python _sicore_knn.py problems.npz results.npz

The search, the set algebra, the stopping rule and the p-value are sicore's. At a point z, the over-conditioned interval
fixes the order of the nearest instances (as many as the largest candidate), the selected k, and the side of the
threshold: all quadratic inequalities in z, solved here for all of them at once, which favours sicore (its own
``polynomial_below_zero`` takes one polynomial at a time).
"""

import sys
import time

import numpy as np
import sicore


def interval_around(z, c, b, a):
    """The largest interval around z in which no polynomial c + b z + a z^2 (arrays) changes its sign."""
    with np.errstate(divide="ignore", invalid="ignore"):
        discriminant = np.sqrt(b * b - 4 * a * c)  # NaN without a real root
        q = -0.5 * (b + np.where(b < 0, -1.0, 1.0) * discriminant)
        roots = np.concatenate([q / a, c / q])
    roots = roots[np.isfinite(roots)]
    return [[roots[roots <= z].max(initial=-np.inf), roots[roots > z].min(initial=np.inf)]]


def knn_line_search(x_test, x_train, candidates, threshold, precision):
    n, d = x_train.shape
    ks = np.array(candidates)
    penalty = np.log(ks) / d
    nearest = np.argsort(np.linalg.norm(x_test - x_train, axis=1), kind="stable")
    score = np.log(np.linalg.norm(x_test - x_train[nearest[ks - 1]], axis=1)) - penalty
    best = int(score.argmax())
    if score[best] <= threshold:
        return np.nan, 0
    j = nearest[ks[best] - 1]
    identity = np.eye(d)
    projection = 0.5 * np.block([[identity, -identity], [-identity, identity]])
    inference = sicore.SelectiveInferenceChi(np.concatenate([x_test, x_train[j]]), 1.0, projection)

    def algorithm(a, b, z):
        offset, slope = a[:d] - x_train, np.tile(b[:d], (n, 1))
        offset[j], slope[j] = a[:d] - a[d:], b[:d] - b[d:]
        # Squared distances c0 + c1 z + c2 z^2.
        c = np.stack([(offset**2).sum(1), 2 * (offset * slope).sum(1), (slope**2).sum(1)])
        distance = c[0] + c[1] * z + c[2] * z * z
        m = ks[-1]
        order = np.argsort(distance, kind="stable")
        value = 0.5 * np.log(distance[order[ks - 1]]) - penalty
        k = int(value.argmax())
        selected = c[:, order[ks[k] - 1]]
        conditions = [c[:, order[: m - 1]] - c[:, order[1:m]], c[:, order[m - 1], None] - c[:, order[m:]]]
        conditions.append(c[:, order[ks - 1]] * np.exp(2 * (penalty[k] - penalty)) - selected[:, None])
        conditions.append((selected - [np.exp(2 * (threshold + penalty[k])), 0, 0])[:, None])
        conditions = np.concatenate(conditions, axis=1)
        conditions = conditions[:, np.abs(conditions).max(axis=0) > 1e-12]  # k compared with itself
        model = (int(ks[k]), int(order[ks[k] - 1]), bool(value[k] > threshold))
        return model, interval_around(z, *conditions)

    result = inference.inference(
        algorithm, lambda model: model == (int(ks[best]), int(j), True), precision=precision, max_iter=1_000_000
    )
    return result.p_value, result.search_count


def main():
    problems, results = sys.argv[1:]
    data = np.load(problems)
    rows = []
    for x_test, x_train in zip(data["x_test"], data["x_train"], strict=True):
        start = time.perf_counter()
        p_value, count = knn_line_search(x_test, x_train, data["k"], float(data["threshold"]), float(data["precision"]))
        rows.append((p_value, count, time.perf_counter() - start))
    np.savez(results, p_value=[r[0] for r in rows], count=[r[1] for r in rows], seconds=[r[2] for r in rows])


if __name__ == "__main__":
    main()
