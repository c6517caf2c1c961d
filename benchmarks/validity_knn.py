"""P-values of true null hypotheses: the kNN tests in closed form, with a known and with an estimated covariance.

    python benchmarks/validity_knn.py results/reference/knn_validity.csv 100000

writes a row per setting: over so many detected trials, the rejection rates at 0.05 and 0.01 and whether the p-values
are uniform; with an estimated covariance also those of the plug-in. Settings that the file has already are left out, so
that a run that was stopped goes on. docs/figures/estimated_covariance.py draws the rates over nu/d.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from sigad.knn import EstimatedCovariance, EstimatedScale, detect, knn_test_batch
from sigad.study.rates import clopper_pearson, uniformity

SEED = 20251
ONE_TO_TEN = tuple(range(1, 11))
KNOWN = [  # n, d, candidates, features of so many dimensions
    (100, 10, (5,), None),
    (100, 10, (10,), None),
    (100, 10, ONE_TO_TEN, None),
    (20, 10, ONE_TO_TEN, None),
    (20, 2, ONE_TO_TEN, None),
    (50, 8, (1, 3, 5), 3),
]
DEGREES = [(2, 3), (2, 6), (5, 6), (5, 8), (5, 15), (5, 50), (10, 12), (10, 20), (10, 60), (20, 25), (20, 60), (50, 60)]
SCALES = [(2, 3), (10, 5), (10, 100)]  # d, degrees of freedom of the scale
COLUMNS = (
    "against", "covariance", "n", "d", "k", "features", "degrees_of_freedom", "trials", "tested",
    "rate_05", "low_05", "high_05", "rate_01", "ks", "ks_p_value", "ad_p_value", "plugin_05",
)  # fmt: skip


def wishart(rng: np.random.Generator, b: int, d: int, nu: int) -> np.ndarray:
    """b draws of W_d(I, nu), by Bartlett's decomposition."""
    root = np.tril(rng.normal(size=(b, d, d)), -1)
    root[:, np.arange(d), np.arange(d)] = np.sqrt(rng.chisquare(nu - np.arange(d), size=(b, d)))
    return root @ np.swapaxes(root, 1, 2)


def run(against: str, kind: str, n: int, d: int, k: tuple, features: int | None, df: int, tested: int, rng) -> dict:
    """Trials N(0, I) until so many are detected, at the 0.8 quantile of the scores of others."""
    matrix = None if features is None else rng.normal(size=(features, d))
    draw = lambda b: (rng.normal(size=(b, d)), rng.normal(size=(b, n, d)))  # noqa: E731
    step = max(50, 4_000_000 // (n * d))
    scores = [detect(*draw(step), k=k, threshold=np.inf, features=matrix).score for _ in range(1 + 4000 // step)]
    threshold = np.quantile(np.concatenate(scores), 0.8)
    p, plugin, trials = [], [], 0
    while sum(map(len, p)) < tested:
        x_test, x_train = draw(step)
        trials += step
        found = detect(x_test, x_train, k=k, threshold=threshold, features=matrix).selected
        b = int(found.sum())
        if kind == "known":
            covariances = [1.0]
        elif kind == "matrix":
            estimate = EstimatedCovariance(scatter=wishart(rng, b, d, df), degrees_of_freedom=df)
            covariances = [estimate, estimate.matrix]
        else:
            estimate = EstimatedScale(np.eye(d), sum_of_squares=rng.chisquare(df, size=b), degrees_of_freedom=df)
            covariances = [estimate, estimate.variance[:, None, None] * np.eye(d)]
        given = dict(k=k, threshold=threshold, features=matrix, against=against)
        for found_p, covariance in zip((p, plugin), covariances, strict=False):
            found_p.append(knn_test_batch(x_test[found], x_train[found], covariance=covariance, **given).p_value)
    p = np.concatenate(p)
    low, high = clopper_pearson((p <= 0.05).sum(), len(p))
    u = uniformity(p)
    return {
        "against": against, "covariance": kind, "n": n, "d": d, "k": " ".join(map(str, k)),
        "features": features or d, "degrees_of_freedom": df, "trials": trials, "tested": len(p),
        "rate_05": np.mean(p <= 0.05), "low_05": float(low), "high_05": float(high), "rate_01": np.mean(p <= 0.01),
        "ks": u.ks, "ks_p_value": u.ks_p_value, "ad_p_value": u.ad_p_value,
        "plugin_05": np.mean(np.concatenate(plugin) <= 0.05) if plugin else np.nan,
    }  # fmt: skip


def main() -> None:
    path, tested = Path(sys.argv[1]), int(sys.argv[2])
    settings = [(a, "known", *s, 0) for s in KNOWN for a in ("neighbour", "neighbourhood")]
    settings += [(a, "matrix", 50, d, (5,), None, nu) for d, nu in DEGREES for a in ("neighbour", "neighbourhood")]
    settings += [(a, "scale", 50, d, (5,), None, df) for d, df in SCALES for a in ("neighbour", "neighbourhood")]
    done = set()
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            done = {tuple(row[c] for c in COLUMNS[:7]) for row in csv.DictReader(file)}
    for number, setting in enumerate(settings):
        against, kind, n, d, k, features, df = setting
        if tuple(map(str, (against, kind, n, d, " ".join(map(str, k)), features or d, df))) in done:
            continue
        row = run(*setting, tested, np.random.default_rng((SEED, number)))
        row = {name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()}
        begun = path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if not begun:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
