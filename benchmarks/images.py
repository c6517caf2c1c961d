"""Seconds per p-value of the kNN test with the features of ResNet-18 on 30x30 patches.

    python benchmarks/images.py [--seconds 20] [--si4onnx]

One thread, processor time. n = 100 training patches of N(0, I) pixels, ten candidates for k, random weights (trained
ones have another number of pieces, each as costly). Compared are, on the pieces that the test looked at,

- plain: all n + 1 patches go through the network one linear piece at a time, by a forward-mode derivative (float64),
  timed for `--seconds` and extrapolated; the distances and the selection are not even computed;
- si4onnx, with --si4onnx: its engine on the two moving patches with its cache off, timed and extrapolated likewise,
  distances and selection left out as well; benchmarks/_si4onnx.py says how to create its environment.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad

from sigad.knn import knn_test
from sigad.knn.network import NetworkFeatures
from sigad.models.vision import import_torchvision

HERE = Path(__file__).parent
N, SHAPE = 100, (3, 30, 30)


def resnet18() -> nn.Module:
    torch.manual_seed(0)
    network = import_torchvision().models.resnet18(weights=None)
    network.fc = nn.Identity()
    return network.eval().requires_grad_(False)


def plain_step(network: nn.Module, x: torch.Tensor, direction: torch.Tensor) -> float:
    """Distance to the next breakpoint of any ReLU, from a pass over all instances with their derivatives."""
    step = [torch.inf]

    def look(module, inputs):
        value, slope = forward_ad.unpack_dual(inputs[0])
        if slope is not None:
            reach = torch.where(value * slope < 0, -value / slope, torch.inf)
            step[0] = min(step[0], float(reach.min()))

    hooks = [m.register_forward_pre_hook(look) for m in network.modules() if isinstance(m, nn.ReLU)]
    with torch.no_grad(), forward_ad.dual_level():
        network(forward_ad.make_dual(x, direction))
    for hook in hooks:
        hook.remove()
    return step[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--si4onnx", action="store_true")
    parser.add_argument("--tests", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network, rng = resnet18(), np.random.default_rng(0)
    features, x_train = NetworkFeatures(network), rng.normal(size=(N, *SHAPE))
    started = time.process_time()
    train_features = features(x_train)
    print(f"features of the {N} training patches, once: {time.process_time() - started:.2f} s")
    options = dict(
        k=list(range(1, 11)), threshold=-9.0, covariance=1.0, features=features, train_features=train_features
    )
    x_tests, results = rng.normal(size=(arguments.tests, *SHAPE)), []
    for x in x_tests:
        started = time.process_time()
        result = knn_test(x, x_train, **options)
        results.append((time.process_time() - started, result))
        print(f"sigad: {results[-1][0]:.2f} s, {result.n_evaluations} pieces, p = {result.p_value:.4f}")
    seconds = float(np.mean([s for s, _ in results]))
    pieces = float(np.mean([r.n_evaluations for _, r in results]))

    x, result = x_tests[0], results[0][1]
    j, t = result.selection.index, result.statistic
    middle, direction = (x + x_train[j]) / 2, (x - x_train[j]) / (2 * t)
    all_x = torch.from_numpy(np.concatenate([x[None], x_train]))
    all_d = torch.zeros_like(all_x)
    all_d[0], all_d[1 + j] = torch.from_numpy(direction), -torch.from_numpy(direction)
    double, count, z = features.double, 0, 0.0
    for module in double.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    started = time.process_time()
    while time.process_time() - started < arguments.seconds:
        z += plain_step(double, all_x + z * all_d, all_d) + 1e-9
        count += 1
    plain = (time.process_time() - started) / count
    print(f"plain: {plain:.2f} s for each piece, {plain * pieces:.0f} s in all: {plain * pieces / seconds:.0f} times")

    if arguments.si4onnx:
        with tempfile.TemporaryDirectory() as folder:
            task = Path(folder) / "task.pt"
            content = {"middle": middle, "direction": direction, "statistic": t, "seconds": arguments.seconds}
            torch.save({k: torch.as_tensor(v) for k, v in content.items()} | {"state": network.state_dict()}, task)
            python = HERE / ".venv-si4onnx" / "bin" / "python"
            done = subprocess.run(
                [python, HERE / "_si4onnx_images.py", task], capture_output=True, text=True, check=True
            )
        other = json.loads(done.stdout.splitlines()[-1])
        each = other["seconds"] / other["pieces"]
        print(
            f"si4onnx: {each:.3f} s for each piece, {each * pieces:.0f} s in all: {each * pieces / seconds:.0f} times; "
            f"features differ by {other['difference']:.1e}"
        )


if __name__ == "__main__":
    main()
