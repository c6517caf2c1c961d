"""Draw docs/figures/conformal_noise.png: p-values that need Gaussian noise, and p-values that do not.

    python docs/figures/conformal_noise.py          # simulates (some minutes), writes conformal_noise.csv, draws
    python docs/figures/conformal_noise.py --draw   # draws what is in conformal_noise.csv

A kNN detector (d = 5, n = 50, k = 5, threshold at the 0.6 quantile of normal scores) inspects instances with
standardised normal noise, Student's t with 3 degrees of freedom, and a mixture (one instance in ten has seven times the
standard deviation of the others). At least 10,000 detected normals and as many detected anomalies (a shift of 4 in a
random direction) per noise, each with a training set and 100 calibration normals of its own, are tested with the
neighbourhood test, which takes the noise for Gaussian, and with the conformal p-values of the score, of the selective
p-value, and per inspected instance.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from sigad import knn_test_batch
from sigad.figures.style import STYLE, save_figure
from sigad.inference.conformal import detection_conditional, unconditional
from sigad.knn.detection import detect
from sigad.study.rates import clopper_pearson

HERE = Path(__file__).parent
SEED, TRIALS, CHUNK = 20253, 10_000, 250
N, D, K, CALIBRATION, SHIFT = 50, 5, 5, 100, 4.0
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
NOISES = {"normal": "normal", "student": "Student t, 3 df", "mixture": "mixture"}
METHODS = {
    "selective": ("selective (assumes Gaussian noise)", "#D55E00", "o"),
    "conformal": ("conformal given detection: score", "#0072B2", "s"),
    "conformal_selective": ("conformal given detection: selective p", "#009E73", "D"),
    "unconditional": ("conformal per inspected instance: score", "#CC79A7", "^"),
}


def draw_noise(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Instances (..., D) whose every coordinate has mean 0 and variance 1."""
    if name == "student":
        return rng.standard_t(3, shape) / np.sqrt(3)
    normal = rng.standard_normal(shape)
    if name == "mixture":
        normal *= np.where(rng.random((*shape[:-1], 1)) < 0.1, 2.9, 2.9 / 7)
    return normal / (np.sqrt(0.1 * 2.9**2 + 0.9 * (2.9 / 7) ** 2) if name == "mixture" else 1)


def trials(noise: str, shift: float, rng: np.random.Generator):
    """p-values of detected instances by method, and how many instances were inspected for them."""
    pilot = draw_noise(noise, rng, (4000, N + 1, D))
    threshold = float(np.quantile(detect(pilot[:, 0], pilot[:, 1:], k=K, threshold=0.0).score, 0.6))
    parts, inspected = [], 0
    while sum(len(part["selective"]) for part in parts) < TRIALS:
        x = draw_noise(noise, rng, (CHUNK, N + CALIBRATION + 1, D))
        direction = rng.standard_normal((CHUNK, D))
        x[:, 0] += shift * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        inspected += CHUNK
        train, others = x[:, CALIBRATION + 1 :], x[:, : CALIBRATION + 1]
        found = detect(others[:, 0], train, k=K, threshold=threshold).selected
        train, others = train[found], others[found]
        everything = others.reshape(-1, D), np.repeat(train, CALIBRATION + 1, axis=0)
        shape = (len(train), CALIBRATION + 1)
        score = detect(*everything, k=K, threshold=threshold).score.reshape(shape)
        p = knn_test_batch(*everything, k=K, threshold=threshold, covariance=1.0, against="neighbourhood").p_value
        p, detected = p.reshape(shape), score > threshold
        scores = score[:, 0], score[:, 1:]
        options = {"detected": detected[:, 0], "calibration_detected": detected[:, 1:]}
        parts.append(
            {
                "selective": p[:, 0],
                "conformal": detection_conditional(*scores, **options).p_value,
                "conformal_selective": detection_conditional(p[:, 0], p[:, 1:], extreme="small", **options).p_value,
                "unconditional": unconditional(*scores, **options).p_value,
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in METHODS}, inspected


def simulate() -> pd.DataFrame:
    rows = []
    for i, noise in enumerate(NOISES):
        for truth, shift in (("normal", 0.0), ("anomaly", SHIFT)):
            p_values, inspected = trials(noise, shift, np.random.default_rng([SEED, i, int(shift)]))
            for method, p in p_values.items():
                # The unconditional claim is about all that were inspected: what was not detected is not rejected.
                n = inspected if method == "unconditional" and truth == "normal" else len(p)
                for level in LEVELS:
                    rejected = int((p <= level).sum())
                    low, high = clopper_pearson(rejected, n)
                    rows.append((noise, truth, method, level, n, rejected, rejected / n, float(low), float(high)))
            print(noise, truth, len(p), inspected, flush=True)
    return pd.DataFrame(
        rows, columns=["noise", "truth", "method", "level", "trials", "rejected", "rate", "low", "high"]
    )


def plot(frame: pd.DataFrame):
    lines = frame.groupby(["noise", "truth", "method"])
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(8.2, 5.2), sharex=True, layout="constrained")
        for column, (noise, title) in zip(axes.T, NOISES.items(), strict=True):
            for axis, truth in zip(column, ("normal", "anomaly"), strict=True):
                for method, (label, color, marker) in METHODS.items():
                    rows = lines.get_group((noise, truth, method))
                    error = [rows["rate"] - rows["low"], rows["high"] - rows["rate"]]
                    axis.errorbar(rows["level"], rows["rate"], error, label=label, color=color, marker=marker)
                if truth == "normal":
                    axis.plot(LEVELS, LEVELS, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
                    axis.set(xscale="log", yscale="log", title=title, ylim=(3e-3, 1))
                sns.despine(ax=axis)
            column[1].set(xlabel="level", ylim=(0, 1), xticks=LEVELS, xticklabels=[f"{level:g}" for level in LEVELS])
            column[1].minorticks_off()
        axes[0, 0].set_ylabel("normals rejected")
        axes[1, 0].set_ylabel("detected anomalies rejected")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    path = HERE / "conformal_noise.csv"
    if "--draw" not in sys.argv:
        simulate().to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    save_figure(plot(pd.read_csv(path)), HERE / "conformal_noise.png")
