"""Power, own weight and evaluations of the localization test on lattices of several spacings, and in cells.

    python benchmarks/power_lattice.py 16 100 --resolution 1 --exact
    python benchmarks/power_lattice.py 64 20 --resolution 8 --finest 0.05 --signal 0.5
    python benchmarks/power_lattice.py --figure

size of the images, how many of them are tested, side of the blocks that are tested (1: the marked pixels), whether the
exact engine tests them too, the finest spacing, and the signal. The diffusion model of benchmarks/localization.py,
trained at 16 x 16 for all sizes, in single precision (the exact engine: double), threshold 0.8. Images N(0, I) with the
signal added to a random square of side size // 3; tested are those whose tested region meets the square. The detector
is run once, on the finest lattice, of which the others are parts. Rows are appended to
results/reference/lattice_power.csv, and a run that was stopped goes on. --figure draws docs/figures/lattice_power.png
from it and prints the table of docs/lattice.md.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _networks import Localizer, UNet, trained_unet
from localization import STEPS, Reconstruct

from sigad.inference.exact import exact
from sigad.inference.lattice import lattice
from sigad.inference.result import Decision
from sigad.inference.spacing import _Recorded
from sigad.localization import Detector, MaskHypothesis, contrast
from sigad.localization.coarse import parse_resolution
from sigad.study.rates import clopper_pearson

ROOT = Path(__file__).parents[1]
ROWS, FIGURE = ROOT / "results" / "reference" / "lattice_power.csv", ROOT / "docs" / "figures" / "lattice_power.png"
NETWORK, TRAINED = Path(__file__).parent / "output" / "lattice_power.pt", 16
COLUMNS = ("size", "signal", "resolution", "rep", "engine", "spacing", "cell", "p_value", "own_weight", "n_evaluations")
THRESHOLD, ALPHA = 0.8, 0.05
CELLS = (2.0, 1.0, 0.5)
HALVINGS = 5
WIDEST = 0.4  # in the table
PRECISE = 1e-5
FEWEST, MANY = 5, 24  # images that the table shows, and the figure
BATCH = 16


def network() -> UNet:
    """The noise predictor, trained once: it is convolutional, and independent noise is alike at all sizes."""
    if not NETWORK.exists():
        NETWORK.parent.mkdir(exist_ok=True)
        torch.save(trained_unet(TRAINED, STEPS[TRAINED]).state_dict(), NETWORK)
    unet = UNet()
    unet.load_state_dict(torch.load(NETWORK))
    return unet.eval()


def problem(
    unet: UNet, size: int, signal: float, resolution: int, rep: int
) -> tuple[MaskHypothesis, MaskHypothesis] | None:
    """The hypothesis that an image poses, about the detector in single precision and in double; None if its region
    does not meet the signal."""
    generator = torch.Generator().manual_seed(rep)
    detector = Detector(Reconstruct(Localizer(unet, size, generator)).eval(), threshold=THRESHOLD)
    x, x_ref = torch.randn(2, 1, size, size, generator=generator, dtype=torch.float64).numpy()
    side, square = size // 3, np.zeros((size, size), bool)
    row, column = torch.randint(0, size - side + 1, (2,), generator=generator).tolist()
    square[row : row + side, column : column + side] = True
    x, coarse, fast = x + signal * square, parse_resolution(resolution), detector.in_single_precision()
    mask = fast.detect(x).mask
    tested = coarse.tested(mask[None])[0]
    if not (tested & square).any():
        return None
    line = contrast(tested, x, x_ref, 1.0)
    return tuple(MaskHypothesis(which, x, mask, line, coarse=coarse) for which in (fast, detector))


def run(size: int, count: int, signal: float, resolution: int, finest: float, with_exact: bool, decide: bool) -> None:
    done = set()
    if ROWS.exists():
        rows = pd.read_csv(ROWS)
        rows = rows[(rows["size"] == size) & (rows["signal"] == signal) & (rows["resolution"] == resolution)]
        done = set(zip(rows["rep"], rows["engine"], strict=True))
    unet, tested, rep = network(), 0, -1
    while tested < count:
        rep += 1
        if (found := problem(unet, size, signal, resolution, rep)) is None:
            continue
        tested += 1
        lines = []
        if with_exact and (rep, "exact") not in done:
            result = exact(found[1], tolerance=Decision(ALPHA) if decide else PRECISE)
            lines.append(("exact", "", "", result.p_value, "", result.n_evaluations))
        if (rep, "lattice") not in done:
            once = _Recorded.of(lattice(found[0], spacing=finest, tolerance=PRECISE, batch=32))
            for cell in (None, *CELLS):
                for spacing in finest * 2.0 ** np.arange(0, HALVINGS + 1, 1 if cell is None else 2):
                    result = lattice(once, spacing=spacing, cell=cell, batch=BATCH)
                    numbers = result.p_value, f"{result.own_weight:.4g}", result.n_evaluations
                    lines.append(("lattice", f"{spacing:g}", cell or "", *numbers))
        with ROWS.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(COLUMNS)
            for engine, spacing, cell, p_value, *others in lines:
                writer.writerow(
                    [size, f"{signal:g}", resolution, rep, engine, spacing, cell, f"{p_value:.4g}", *others]
                )


def summary() -> pd.DataFrame:
    """Power with its exact interval, and the medians of own weight and evaluations, of every setting."""
    result = []
    names = ["size", "signal", "resolution", "engine", "cell", "spacing"]
    for key, rows in pd.read_csv(ROWS).groupby(names, dropna=False):
        rejected = int((rows["p_value"] <= ALPHA).sum())
        low, high = clopper_pearson(rejected, len(rows))
        numbers = {"n": len(rows), "power": rejected / len(rows), "low": float(low), "high": float(high)}
        medians = {name: rows[name].median() for name in ("own_weight", "n_evaluations")}
        result.append(dict(zip(names, key, strict=True)) | numbers | medians)
    return pd.DataFrame(result)


def table(numbers: pd.DataFrame) -> str:
    """The whole-line lattices beside the exact engine, in Markdown."""
    lines = ["| image | signal | tested | images | engine | power | own weight | evaluations |"]
    lines.append("| --- | ---: | --- | ---: | --- | ---: | ---: | ---: |")
    for row in numbers[numbers["cell"].isna() & ~(numbers["spacing"] > WIDEST)].itertuples():
        engine = "exact" if row.engine == "exact" else f"spacing {row.spacing:g}"
        tested = "marked pixels" if row.resolution == 1 else f"blocks of {row.resolution}"
        own = "" if row.engine == "exact" else f"{row.own_weight:.2g}"
        evaluations = f"{row.n_evaluations:.0f}" + (" pieces" if row.engine == "exact" else "")
        power = f"{row.power:.2f} [{row.low:.2f}, {row.high:.2f}]"
        question = f"{row.size} × {row.size} | {row.signal:g} | {tested}"
        lines.append(f"| {question} | {row.n} | {engine} | {power} | {own} | {evaluations} |")
    return "\n".join(lines)


def draw(numbers: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    from sigad.figures.style import save_figure

    questions = list(numbers.groupby(["size", "signal", "resolution"]).groups)
    measures = {
        "power": f"power at {ALPHA}",
        "own_weight": "own weight (median)",
        "n_evaluations": "evaluations (median)",
    }
    figure, axes = plt.subplots(
        3, len(questions), figsize=(2.3 * len(questions), 6.2), sharex=True, sharey="row", layout="constrained"
    )
    for (size, signal, resolution), panels in zip(questions, axes.T, strict=True):
        here = numbers.loc[numbers["size"] == size]
        here = here[(here["signal"] == signal) & (here["resolution"] == resolution)]
        lattices, known = here[here["engine"] == "lattice"], here[here["engine"] == "exact"]
        for measure, panel in zip(measures, panels, strict=True):
            for number, cell in enumerate((np.nan, *CELLS)):
                rows = lattices[lattices["cell"].isna() if np.isnan(cell) else lattices["cell"] == cell]
                label = "whole line" if np.isnan(cell) else f"cells of {cell:g}"
                bars = np.abs(rows[["low", "high"]].to_numpy().T - rows["power"].to_numpy())
                panel.errorbar(
                    rows["spacing"] * 1.06**number,
                    rows[measure],
                    yerr=bars if measure == "power" and np.isnan(cell) else None,
                    marker="osD^"[number],
                    color=f"C{number}",
                    label=label,
                    linewidth=1.1,
                    markersize=3.5,
                    elinewidth=0.7,
                    capsize=1.5,
                )
            if measure == "power" and len(known):
                panel.axhline(known["power"].item(), color="black", linewidth=0.9, linestyle="--", label="exact engine")
            panel.set_xscale("log")
            if measure != "power":
                panel.set_yscale("log")
        tested = "marked pixels" if resolution == 1 else f"blocks of {resolution}"
        panels[0].set_title(f"{size} × {size}, signal {signal:g}\n{tested}, {here['n'].max()} images", fontsize=9)
    figure.supxlabel("spacing in standard deviations", fontsize=9)
    for panel, name in zip(axes[:, 0], measures.values(), strict=True):
        panel.set_ylabel(name)
    axes[0, 0].set_ylim(0, 1.03)
    axes[1, 0].set_ylim(1e-5, 1.5)
    axes[0, 0].set_xticks([0.0125, 0.05, 0.2, 0.8], ["0.0125", "0.05", "0.2", "0.8"])
    axes[0, 0].minorticks_off()
    axes[0, 0].legend(frameon=False, fontsize=7)
    save_figure(figure, FIGURE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, nargs="?")
    parser.add_argument("images", type=int, nargs="?", default=100)
    parser.add_argument("--signal", type=float, default=2.0)
    parser.add_argument("--resolution", type=int, default=1)
    parser.add_argument("--finest", type=float, default=0.0125)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--decide", action="store_true", help="the exact engine stops when p is above or below 0.05")
    parser.add_argument("--figure", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.size:
        run(
            options.size,
            options.images,
            options.signal,
            options.resolution,
            options.finest,
            options.exact,
            options.decide,
        )
    if options.figure:
        numbers = summary()
        numbers = numbers[numbers["n"] >= FEWEST]
        draw(numbers[numbers["n"] >= MANY])
        print(table(numbers))
