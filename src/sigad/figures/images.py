"""Figures of images and their patches. Each draws exactly the numbers of the frame that it gets, beside the pixels."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sigad.figures.style import STYLE

NOISE_COLOURS = {"isotropic": "#0072B2", "diagonal": "#009E73", "shrunk": "#D55E00"}


def shown(image: NDArray) -> NDArray:
    """An image (C, H, W) with values 0..255 as matplotlib draws it."""
    image = np.clip(np.asarray(image, np.float64) / 255, 0, 1)
    return np.repeat(image, 3, axis=0).transpose(1, 2, 0) if len(image) == 1 else image.transpose(1, 2, 0)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def plot_examples(frame: pd.DataFrame, pixels: Mapping[int, tuple[NDArray, NDArray, NDArray]]) -> Figure:
    """One row per example: the image with the patch marked, the patch, its selected neighbour, and the p-values.

    ``frame``: columns ``dataset``, ``truth``, ``row``, ``column``, ``patch`` (its side in pixels), ``naive``,
    ``selective``, ``neighbourhood``; ``pixels`` maps the index of the frame to (image, patch, neighbour), each of them
    (C, H, W).
    """
    with sns.axes_style("white"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            max(len(frame), 1), 3, figsize=(4.6, 1.45 * max(len(frame), 1) + 0.3), squeeze=False, layout="constrained"
        )
        for axis in axes.ravel():
            axis.set_xticks([])
            axis.set_yticks([])
        for line, (_, row), images in zip(axes, frame.iterrows(), (pixels[i] for i in frame.index), strict=False):
            side = row["patch"]
            for axis, image in zip(line, images, strict=True):
                axis.imshow(shown(image), interpolation="nearest")
            corner = (row["column"] * side - 0.5, row["row"] * side - 0.5)
            line[0].add_patch(Rectangle(corner, side, side, fill=False, color="#D55E00", linewidth=1.2))
            line[0].set_ylabel(f"{row['dataset']}\n{row['truth']}", fontsize=7)
            line[1].set_title(f"naive p = {_p(row['naive'])}", fontsize=7)
            selective, neighbourhood = _p(row["selective"]), _p(row["neighbourhood"])
            line[2].set_title(f"selective p = {selective}\nneighbourhood p = {neighbourhood}", fontsize=7)
        for axis, name in zip(axes[-1], ("image", "patch", "its selected neighbour"), strict=True):
            axis.set_xlabel(name, fontsize=7)
    return figure


def plot_noise(frame: pd.DataFrame) -> Figure:
    """Above, QQ plots of whitened residuals of held-out normal patches against N(0, 1); below, the probabilities of the
    statistic of held-out pairs under chi against U(0, 1). One column per data set, one line per noise model.

    ``frame``: columns ``dataset``, ``covariance``, ``level``, ``normal``, ``residual``, ``probability``.
    """
    datasets = list(dict.fromkeys(frame["dataset"]))
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2, len(datasets), figsize=(2.2 * len(datasets) + 1.2, 4.4), squeeze=False, layout="constrained"
        )
        for column, dataset in enumerate(datasets):
            above, below = axes[:, column]
            for kind, rows in frame[frame["dataset"] == dataset].groupby("covariance", sort=False):
                style = {"color": NOISE_COLOURS[kind], "label": kind}
                above.plot(rows["normal"], rows["residual"], **style)
                below.plot(rows["level"], rows["probability"], **style)
            for axis, ends in ((above, (-2.6, 2.6)), (below, (0, 1))):
                axis.plot(ends, ends, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
                sns.despine(ax=axis)
            above.set_title(dataset)
            above.set_xlabel("quantile of N(0, 1)")
            below.set_xlabel("quantile of U(0, 1)")
        axes[0, 0].set_ylabel("whitened residuals")
        axes[1, 0].set_ylabel("chi probability of the statistic")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", title="covariance")
    return figure


def plot_map(frame: pd.DataFrame, picture: NDArray, patch: int, *, level: float) -> Figure:
    """A picture (C, H, W), the truth, and -log10 of the selective p-values of its detected patches, rejected framed.

    ``frame``: one row per patch: ``row``, ``column``, ``defect``, ``detected``, ``selective``, ``rejected``.
    """
    shape = (frame["row"].max() + 1, frame["column"].max() + 1)
    values, truth = np.full(shape, np.nan), np.zeros(shape)
    values[frame["row"], frame["column"]] = -np.log10(np.maximum(frame["selective"], 1e-10))
    truth[frame["row"], frame["column"]] = frame["defect"]
    height, width = shape[0] * patch, shape[1] * patch
    stacked = width > 1.6 * height
    with sns.axes_style("white"), plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            *((3, 1) if stacked else (1, 3)), figsize=(4.6, 6.0) if stacked else (8.4, 3.0), layout="constrained"
        )
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        gray = shown(picture).mean(axis=-1)[:height, :width]
        axes[0].imshow(shown(picture)[:height, :width], interpolation="nearest")
        axes[0].set_title("image")
        for axis in axes[1:]:
            axis.imshow(gray, cmap="gray", alpha=0.45, interpolation="nearest")
        axes[1].imshow(np.where(truth > 0, truth, np.nan), extent=extent, cmap="Reds", vmin=0, vmax=1, alpha=0.8)
        axes[1].set_title("share of defective pixels")
        drawn = axes[2].imshow(values, extent=extent, cmap="viridis", vmin=0, vmax=4, alpha=0.85)
        axes[2].set_title(f"$-\\log_{{10}}$ selective p; framed: FDR {level:g} (BY, all patches)")
        for _, row in frame[frame["rejected"]].iterrows():
            corner = (row["column"] * patch - 0.5, row["row"] * patch - 0.5)
            axes[2].add_patch(Rectangle(corner, patch, patch, fill=False, color="#D55E00", linewidth=1.4))
        figure.colorbar(drawn, ax=axes[2], shrink=0.8)
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
    return figure
