"""The same detector through PyPI's si4onnx, for benchmarks/line.py. Runs in an environment of its own (numpy < 2):

    python -m venv benchmarks/.venv-si4onnx
    benchmarks/.venv-si4onnx/bin/pip install torch==2.13.0
    benchmarks/.venv-si4onnx/bin/pip install "torch==2.13.0" "numpy<2" si4onnx onnx

Called with a file {size, unet, seed, low, high, seconds}; prints one line of JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import onnx
import si4onnx
import torch
from _networks import Localizer, UNet, localization
from si4onnx.operators import Abs, AverageFilter, InputDiff
from torch import nn


class Exported(nn.Module):
    """The reconstruction with the time embeddings of each step and block as constants: ONNX sees convolutions only."""

    def __init__(self, detector: Localizer):
        super().__init__()
        self.detector = detector
        record: dict[tuple[int, str], torch.Tensor] = {}
        step = [-1]
        blocks = [(n, m) for n, m in detector.unet.named_modules() if hasattr(m, "norm")]
        hooks = [detector.unet.register_forward_pre_hook(lambda *_: step.__setitem__(0, step[0] + 1))]
        for name, block in blocks:
            keep = lambda _m, _i, out, name=name: record.__setitem__((step[0], name), out.detach().clone())  # noqa: E731
            hooks.append(block.time.register_forward_hook(keep))
        with torch.no_grad():
            detector.reconstruct(torch.zeros_like(detector.noise[0]))
        for hook in hooks:
            hook.remove()
        detector.unet.register_forward_pre_hook(lambda *_: step.__setitem__(0, (step[0] + 1) % len(detector.STEPS)))
        step[0] = -1
        for name, block in blocks:
            block.time.forward = lambda _time, name=name: record[step[0] % len(detector.STEPS), name]
        detector.unet.time.forward = lambda embedding: embedding
        self.step = step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.step[0] = -1
        return self.detector.reconstruct(x)


def readable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model as si4onnx can read it.

    It has no Identity layer, which the exporter writes for every constant that two nodes share, and takes constants in
    double precision as initializers only.
    """
    names = {}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        inputs = [names.get(name, name) for name in node.input]
        if node.op_type == "Identity":
            names[node.output[0]] = inputs[0]
            continue
        if node.op_type == "Constant" and node.attribute[0].t.data_type == onnx.TensorProto.DOUBLE:
            value = model.graph.initializer.add()
            value.CopyFrom(node.attribute[0].t)
            value.name = node.output[0]
            continue
        node.input[:] = inputs
        model.graph.node.append(node)
    return model


def main() -> None:
    task = torch.load(sys.argv[1])
    torch.set_num_threads(1)
    unet = UNet().eval()
    unet.load_state_dict(task["unet"])
    detector, x, direction, mask, statistic = localization(unet, task["size"], task["seed"])
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "detector.onnx")
        torch.onnx.export(Exported(detector.double()).eval(), x[None].double(), path, opset_version=13, dynamo=False)
        model = readable(onnx.load(path))
    hypothesis = si4onnx.ReferenceMeanDiff(threshold=0.8, post_process=[InputDiff(), AverageFilter(), Abs()])
    loaded = si4onnx.load(model=model, hypothesis=hypothesis)
    observed = (x + statistic * direction)[None].double()
    loaded.construct_hypothesis((observed, torch.zeros_like(observed)), 1.0)
    same = bool((loaded.roi.reshape(-1).bool() == mask.reshape(-1)).all())
    a, b = (v.double().reshape(-1).repeat(2) for v in (x, direction))
    z, count, stuck, started = task["low"], 0, 0, time.process_time()
    while z < task["high"] and time.process_time() - started < task["seconds"]:
        _, (_, upper) = loaded.algorithm(a, b, torch.tensor(z, dtype=torch.float64))
        stuck += float(upper) <= z
        z = max(float(upper), z) + 1e-6
        count += 1
    spent = time.process_time() - started
    result = {"pieces": count, "seconds": spent, "reached": z, "same_selection": same, "not_advancing": stuck}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
