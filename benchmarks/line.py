"""Speed of the line engine, as ratios to its own floor and to other methods in the same run.

    python benchmarks/line.py [--sizes 8 16 32 64] [--si4onnx] [--seconds 20]

One thread, processor time (the machine may be shared). For each image size a U-Net is trained for a few steps on
N(0, I) images and its score map (five passes of the U-Net) is restricted to the test's line. Compared are

- floor: K / 2 forward passes of the same module, in batches of 64 (16 at 64x64), K pieces found;
- layers: what each convolution of the floor would cost at the number of points that it really saw (breakpoints that
  appear early cost more passes than K / 2);
- stepping: one piece at a time, by a forward-mode derivative, the next breakpoint, and a step (float32, without the
  check of the selection), timed on `--seconds` of it and extrapolated to K pieces;
- si4onnx, with --si4onnx, timed likewise; benchmarks/_si4onnx.py says how to create its environment.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from _networks import localization, trained_unet
from torch.autograd import forward_ad
from torch.nn import functional as F

from sigad.line import Restriction
from sigad.line.function import RULES
from sigad.models.vision import import_torchvision

HERE = Path(__file__).parent
STEPS = {8: 600, 16: 300, 32: 120, 64: 40}  # of training: brief, enough for the score map to be that of a denoiser
WINDOW = {8: 4.0, 16: 4.0, 32: 0.5, 64: 0.05}  # half width; all of +-4 takes minutes at the larger sizes


def best(run, repeats: int) -> float:
    """Least processor time of several runs."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times)


def propagate(module, x, direction, low: float, high: float, repeats: int) -> tuple[int, float]:
    """Pieces, and seconds for all of them."""
    line, pieces = Restriction(module, x, direction), []
    next(line.chunks((low, high)))  # warm up

    def run():
        pieces[:] = [f.pieces for f in line.chunks((low, high))]

    seconds = best(run, repeats)
    return sum(pieces), seconds


def floor(module, x, batch: int) -> float:
    """Seconds per image of a plain batched forward pass, the better of both memory layouts."""
    images = x[None].repeat(batch, *[1] * x.ndim)
    with torch.no_grad():
        layouts = (images, images.contiguous(memory_format=torch.channels_last))
        return min(best(lambda images=images: module(images), 5) for images in layouts) / batch


def share_of_points(module, x, direction, low: float, high: float) -> float:
    """Mean number of points that convolutions saw, weighted by their arithmetic, over the number of pieces."""
    seen = [0.0, 0.0]
    rule = RULES[F.conv2d]

    def watched(func, args, kwargs):
        result = rule(func, args, kwargs)
        work = result.values[0].numel() * args[1][0].numel()
        seen[0] += work * len(result.breakpoints)
        seen[1] += work
        return result

    RULES[F.conv2d] = watched
    try:
        line, points, pieces, work = Restriction(module, x, direction), 0.0, 0, 0.0
        for f in line.chunks((low, high)):
            points, pieces, work = points + seen[0], pieces + f.pieces, seen[1]
            seen[:] = [0.0, 0.0]
    finally:
        RULES[F.conv2d] = rule
    return points / work / pieces


def stepping(module, x, direction, z: float, seconds: float) -> float:
    """Seconds per piece, one piece at a time: derivative at z, next breakpoint among all ReLUs, step."""
    nearest = [torch.inf]
    relu = F.relu

    def watched(value, inplace: bool = False):
        v, d = forward_ad.unpack_dual(value)
        if d is not None:
            ahead = -v / d
            nearest[0] = min(nearest[0], float(torch.where(ahead > 0, ahead, torch.inf).min()))
        return relu(value)

    count, started = 0, time.process_time()
    F.relu = watched
    try:
        with torch.no_grad(), forward_ad.dual_level():
            while time.process_time() - started < seconds:
                nearest[0] = torch.inf
                module(forward_ad.make_dual((x + z * direction)[None], direction[None]))
                z += nearest[0] + 1e-6
                count += 1
    finally:
        F.relu = relu
    return (time.process_time() - started) / count


def si4onnx(unet, size: int, low: float, high: float, seconds: float) -> dict | None:
    python = HERE / ".venv-si4onnx" / "bin" / "python"
    if not python.exists():
        print("si4onnx: no environment; see benchmarks/_si4onnx.py")
        return None
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        task = {"size": size, "unet": unet.state_dict(), "seed": 0, "low": low, "high": high, "seconds": seconds}
        torch.save(task, file.name)
        run = subprocess.run([python, HERE / "_si4onnx.py", file.name], capture_output=True, text=True)
    if run.returncode:
        print("si4onnx failed:", run.stderr.strip().splitlines()[-1])
        return None
    return json.loads(run.stdout.splitlines()[-1])


def report(name: str, pieces: int, seconds: float, **others: float) -> None:
    ratios = "  ".join(f"{key} {value:.2f}" for key, value in others.items())
    rate = f"{pieces / seconds:7.0f} pieces/s  {1e3 * seconds / pieces:8.3f} ms/piece"
    print(f"{name:24s} {pieces:6d} pieces {seconds:8.2f} s  {rate}  {ratios}", flush=True)


def localize(size: int, arguments) -> None:
    unet = trained_unet(size, STEPS[size])
    detector, x, direction, *_ = localization(unet, size)
    high = WINDOW[size]
    pieces, seconds = propagate(detector, x, direction, -high, high, arguments.repeats)
    passes = floor(detector, x, 64 if size < 64 else 16)
    share = share_of_points(detector, x, direction, -high, high)
    each = stepping(detector, x, direction, -high, arguments.seconds)
    report(
        f"U-Net {size}x{size}, +-{high:g}",
        pieces,
        seconds,
        **{
            "x floor(K/2)": seconds / (pieces / 2 * passes),
            "x floor(layers)": seconds / (pieces * share * passes),
            "points/K": share,
            "stepping/ours": each * pieces / seconds,
        },
    )
    if arguments.si4onnx:
        other = si4onnx(unet, size, -high, high, arguments.seconds)
        if other:
            milliseconds = 1e3 * other["seconds"] / other["pieces"]
            ratio = milliseconds / (1e3 * seconds / pieces)
            whole = "whole window" if other["reached"] >= high else "extrapolated"
            print(f"    si4onnx {milliseconds:.1f} ms/piece on {other['pieces']} ({whole}): ratio {ratio:.1f}  {other}")


def residual(arguments) -> None:
    """ResNet-18 on two moving 30x30 patches, x_test and its neighbour, each restricted by itself."""
    torch.manual_seed(0)
    network = import_torchvision().models.resnet18().eval()  # random weights: those of ImageNet change no cost
    network.fc = torch.nn.Identity()
    a, b = torch.randn(2, 3, 30, 30)
    delta = (a - b) / 2 / ((a - b).norm() / 2**0.5)
    ends = [((a + b) / 2, delta), ((a + b) / 2, -delta)]
    high = 4.0
    both = [propagate(network, x, d, -high, high, arguments.repeats) for x, d in ends]
    pieces, seconds = sum(p for p, _ in both), sum(s for _, s in both)
    passes = floor(network, a, 64)
    share = share_of_points(network, *ends[0], -high, high)
    each = stepping(network, *ends[0], -high, arguments.seconds)
    report(
        f"ResNet-18, 2 of 30x30, +-{high:g}",
        pieces,
        seconds,
        **{
            "x floor(K/2)": seconds / (pieces / 2 * passes),
            "x floor(layers)": seconds / (pieces * share * passes),
            "points/K": share,
            "stepping/ours": each * pieces / seconds,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[8, 16, 32, 64], choices=sorted(STEPS))
    parser.add_argument("--seconds", type=float, default=20.0, help="time given to each of the slow methods")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--si4onnx", action="store_true", help="compare with si4onnx, too")
    parser.add_argument("--no-resnet", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for size in arguments.sizes:
        localize(size, arguments)
    if not arguments.no_resnet:
        residual(arguments)


if __name__ == "__main__":
    main()
