"""Draw docs/figures/line-engine.svg: a small network's function on a line, and its breakpoints layer by layer."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
from torch import nn

from sigad.line import LineFunction, above

torch.manual_seed(283)  # chosen for a picture with several intervals
network = nn.Sequential(
    nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)
)
for layer in network:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5)
        nn.init.normal_(layer.bias, std=0.5)
network.double()
x, direction = torch.randn(2).double(), torch.randn(2).double()
low, high = -4.0, 4.0

points = torch.tensor([low, high], dtype=torch.float64)
f = LineFunction(points, (x + points[:, None] * direction)[:, None])
layers = []
for layer in network:
    known = f.breakpoints
    f = layer(f)
    if isinstance(layer, nn.ReLU):
        layers.append(f.breakpoints[~torch.isin(f.breakpoints, known)])
f = f[0, 0]
level = float(f.values.mean())
tick = 0.06 * float(f.values.max() - f.values.min())
bottom_of_axis = float(f.values.min()) - 2 * tick

plt.rcParams.update({"svg.hashsalt": "sigad", "font.size": 9})
figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 4), sharex=True, height_ratios=[3, 1], layout="constrained")
top.plot(f.breakpoints, f.values, color="black", linewidth=1)
top.plot(f.breakpoints[1:-1], f.values[1:-1], "o", markersize=3, color="black")
top.axhline(level, color="0.6", linewidth=0.8, linestyle="--")
for start, stop in above(f, level)[1]:
    top.axvspan(start, stop, color="tab:orange", alpha=0.2, linewidth=0)
top.set_ylabel("network output g(t)")
for depth, new in enumerate(layers, start=1):
    bottom.vlines(new, depth - 0.35, depth + 0.35, color=f"C{depth - 1}")
    top.vlines(new, bottom_of_axis, bottom_of_axis + tick, color=f"C{depth - 1}")
bottom.set_yticks(range(1, len(layers) + 1), [f"ReLU {depth}" for depth in range(1, len(layers) + 1)])
bottom.set_ylim(len(layers) + 0.6, 0.4)
bottom.set_xlabel("t (input x + t d); shaded: the level set {t : g(t) > c}")
figure.savefig(Path(__file__).with_name("line-engine.svg"), metadata={"Date": None})
print([len(new) for new in layers])
