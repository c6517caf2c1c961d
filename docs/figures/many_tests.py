"""Measure false discoveries of many dependent selective tests; writes docs/figures/many_tests.csv.

    python docs/figures/many_tests.py

Forty instances (d = 5) are inspected with one training set (n = 50, k = 5, threshold at the 0.7 quantile of normal
scores), so that they share neighbours. Their noise is independent (``shared``), correlated by 0.8 between any two of
them (``correlated``), or they are windows of one series of independent noise, each of which has three of its five
values in common with the next (``overlapping``), as overlapping patches of an image have pixels in common. None is an
anomaly, or 8 are (a shift of 5 in a random direction; of the series, the stretch that 8 windows cover, each of which is
shifted by 5: two more windows have a part of it). Each instance that is detected is tested against its neighbourhood;
the procedures of sigad.inference.multiple run over all forty, and Benjamini & Hochberg also over the detected ones
alone. 2,000 images of forty each; level 0.1.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from sigad import knn_test_batch
from sigad.inference.multiple import (
    benjamini_hochberg,
    benjamini_yekutieli,
    e_benjamini_hochberg,
    holm,
    truncated_e_value,
)
from sigad.knn.detection import detect

HERE = Path(__file__).parent
SEED, IMAGES, M, N, D, K, SHIFT, LEVEL, SCALE = 20254, 2000, 40, 50, 5, 5, 5.0, 0.1, 2.0
CORRELATION, STRIDE = 0.8, 2


def instances(rng: np.random.Generator, dependence: str, anomalies: int) -> tuple[np.ndarray, np.ndarray]:
    """The instances (M, D) of one image, and which of them are anomalies."""
    if dependence == "overlapping":
        size = STRIDE * (M - 1) + D
        shifted = np.arange(size) < (STRIDE * (anomalies - 1) + D if anomalies else 0)
        series = rng.standard_normal(size) + shifted * rng.choice([-1, 1], size) * SHIFT / np.sqrt(D)
        cut = lambda values: sliding_window_view(values, D)[::STRIDE]  # noqa: E731
        return cut(series).copy(), cut(shifted).any(axis=1)
    correlation = CORRELATION if dependence == "correlated" else 0.0
    common = np.sqrt(correlation) * rng.standard_normal(D)
    x = common + np.sqrt(1 - correlation) * rng.standard_normal((M, D))
    direction = rng.standard_normal((M, D))
    anomalous = np.arange(M) < anomalies
    return x + SHIFT * anomalous[:, None] * direction / np.linalg.norm(direction, axis=-1, keepdims=True), anomalous


def image(rng: np.random.Generator, dependence: str, anomalies: int, threshold: float):
    """Selective p-values and e-values (M,) of one image, NaN where nothing was detected; and the anomalies."""
    x, anomalous = instances(rng, dependence, anomalies)
    train = rng.standard_normal((N, D))
    result = knn_test_batch(x, train, k=K, threshold=threshold, covariance=1.0, against="neighbourhood")
    tested, e = result.status == "tested", np.full(M, np.nan)
    if tested.any():
        e[tested] = truncated_e_value(result.statistic[tested], result.region[tested], null=("chi", D), scale=SCALE)
    return result.p_value, e, anomalous


def rejections(p: np.ndarray, e: np.ndarray) -> dict[str, np.ndarray]:
    """What each procedure rejects, (M,)."""
    detected = ~np.isnan(p)
    alone = np.zeros(len(p), bool)
    alone[detected] = benjamini_hochberg(p[detected]) <= LEVEL
    return {
        "holm": holm(p) <= LEVEL,
        "benjamini_yekutieli": benjamini_yekutieli(p) <= LEVEL,
        "e_benjamini_hochberg": e_benjamini_hochberg(e) <= LEVEL,
        "benjamini_hochberg": benjamini_hochberg(p) <= LEVEL,
        "benjamini_hochberg_detected_only": alone,
        "unadjusted": detected & (p <= LEVEL),
    }


def main() -> None:
    rng = np.random.default_rng(SEED)
    pilot = rng.standard_normal((4000, N + 1, D))
    threshold = float(np.quantile(detect(pilot[:, 0], pilot[:, 1:], k=K, threshold=0.0).score, 0.7))
    rows = []
    for code, dependence in ((0, "shared"), (8, "correlated"), (1, "overlapping")):
        for anomalies in (0, 8):
            counts: dict[str, list[tuple[int, int]]] = {}
            there = 0
            for number in range(IMAGES):
                rng = np.random.default_rng([SEED, code, anomalies, number])
                p, e, anomalous = image(rng, dependence, anomalies, threshold)
                there = anomalous.sum()
                for name, rejected in rejections(p, e).items():
                    counts.setdefault(name, []).append(((rejected & ~anomalous).sum(), rejected.sum()))
            for name, pairs in counts.items():
                false, all_ = np.array(pairs).T
                share = false / np.maximum(all_, 1)
                power = (all_ - false).mean() / there if there else np.nan
                error = share.std(ddof=1) / np.sqrt(IMAGES)
                rows.append((dependence, anomalies, name, share.mean(), error, (false > 0).mean(), power))
    columns = ["dependence", "anomalies", "procedure", "fdr", "fdr_standard_error", "fwer", "power"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.to_csv(HERE / "many_tests.csv", index=False, float_format="%.4f", lineterminator="\n")
    print(frame.to_string())


if __name__ == "__main__":
    main()
