"""Cost of the localization test: seconds and linear pieces per p-value, one core, and against si4onnx.

    python benchmarks/localization.py [--sizes 8 16] [--problems 3] [--si4onnx]

A U-Net of the paper's architecture is trained for a few steps on N(0, I) images of each size; the tested images are
N(0, I) too. Both sides search until their bounds on the p-value are closer than 1e-3, on the same networks, images and
noises, and the p-values are compared. si4onnx's two-sided p-value is the equal-tailed one, so this is tested on our
side. Every end point of our truncation region is checked against the detector itself in double precision.

Times are processor times, for the machine may be shared. Before ours, so many other images are tested that the process
has its memory and oneDNN has compiled convolutions for many numbers of images. `new` is the time of a first test, as a
user's are, and the one that is compared; `again` the median of some more, for which nothing is compiled.

The comparison needs an environment of its own (numpy < 2); benchmarks/_si4onnx.py says how to create it. It takes 20
seconds per p-value at 8 x 8, minutes at 32 x 32 and an hour at 64 x 64.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _networks import Localizer, trained_unet
from torch import nn

from sigad.inference.region import contains
from sigad.localization import Detector, MaskHypothesis, contrast, localization_test

HERE = Path(__file__).parent
SI4ONNX = HERE / ".venv-si4onnx" / "bin" / "python"
STEPS = {8: 600, 16: 300, 32: 120, 64: 40}  # of training, as in line.py
OTHERS = {8: 60, 16: 30, 32: 1, 64: 1}  # problems that are tested before
ROUNDS = {8: 7, 16: 5, 32: 1, 64: 1}  # after the first
PRECISION = 1e-3


class Reconstruct(nn.Module):
    """The reconstruction of the benchmark's detector."""

    def __init__(self, detector: Localizer):
        super().__init__()
        self.detector = detector

    def forward(self, x):
        return self.detector.reconstruct(x)


def problems(unet: nn.Module, size: int, count: int) -> list[tuple]:
    """Detectors with images in which they mark something: (detector, x, x_ref)."""
    generator, found = torch.Generator().manual_seed(1), []
    while len(found) < count:
        detector = Localizer(unet, size, generator).eval()
        x, x_ref = torch.randn(2, 1, size, size, generator=generator)
        with torch.no_grad():
            if (detector(x[None]) > 0.8).any():
                found.append((detector, x, x_ref))
    return found


def ours(detector: Localizer, x: torch.Tensor, x_ref: torch.Tensor):
    """Result and processor seconds of the whole test, detection included."""
    started = time.process_time()
    result = localization_test(
        Reconstruct(detector).eval(),
        x,
        x_ref,
        threshold=0.8,
        covariance=1.0,
        tolerance=PRECISION,
        alternative="equal-tailed",
    )
    return result, time.process_time() - started


def theirs(unet: nn.Module, size: int, given: list[tuple]) -> list[dict]:
    """The same with si4onnx."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.pt"
        task = {"size": size, "unet": unet.state_dict(), "precision": PRECISION}
        torch.save(task | {"problems": [(d.noise, x, x_ref) for d, x, x_ref in given]}, path)
        command = [SI4ONNX, HERE / "_si4onnx_localization.py", path]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def confirmed(problem: tuple, result, step: float = 1e-7) -> bool:
    """Whether the detector itself, in double precision, marks the same region just inside of every end point of the
    truncation region, and another one just outside."""
    detector, x, x_ref = problem
    x, x_ref = x.double().numpy(), x_ref.double().numpy()
    mask = result.selection.mask
    marks = Detector(Reconstruct(detector).eval(), threshold=0.8)
    hypothesis = MaskHypothesis(marks, x, mask, contrast(mask, x, x_ref, 1.0))
    ends = result.region[(result.region > result.searched[0]) & (result.region < result.searched[1])]
    z = np.stack([ends - step, ends + step], 1).ravel()
    same = hypothesis.same(z)
    return bool((same == contains(result.region, z)).all() and (same[::2] != same[1::2]).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16], choices=STEPS)
    parser.add_argument("--problems", type=int, default=3, help="per size")
    parser.add_argument("--si4onnx", action="store_true", help="compare with si4onnx")
    arguments = parser.parse_args()
    if arguments.si4onnx and not SI4ONNX.exists():
        sys.exit("benchmarks/_si4onnx.py says how to create the environment for the comparison")
    torch.set_num_threads(1)
    print("size     new   again  pieces   p-value   si4onnx: seconds  pieces  difference   ratio")
    for size in arguments.sizes:
        unet = trained_unet(size, STEPS[size])
        drawn = problems(unet, size, arguments.problems + OTHERS[size])
        given, others = drawn[: arguments.problems], drawn[arguments.problems :]
        for problem in others:
            ours(*problem)
        rounds = [[ours(*problem) for problem in given] for _ in range(1 + ROUNDS[size])]
        found = zip(given, zip(*rounds, strict=True), strict=True)
        other = theirs(unet, size, given) if arguments.si4onnx else [None] * len(given)
        for (problem, ((result, seconds), *runs)), them in zip(found, other, strict=True):
            again = statistics.median(time for _, time in runs)
            line = f"{size:4d}  {seconds:6.2f}  {again:6.2f}  {result.n_evaluations:6d}  {result.p_value:8.5f}"
            if them is not None:
                ratio, difference = them["seconds"] / seconds, abs(them["p_value"] - result.p_value)
                line += f"   {them['seconds']:16.1f}  {them['pieces']:6.0f}  {difference:10.0e}  {ratio:6.1f}"
                agree = max(result.p_low, them["p_low"]) <= min(result.p_high, them["p_high"]) + 1e-6
                line += "" if agree else "   the bounds do not overlap"
            line += "" if confirmed(problem, result) else "   SIGAD'S END POINTS ARE WRONG"
            print(line, flush=True)


if __name__ == "__main__":
    main()
