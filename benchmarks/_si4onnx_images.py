"""Two moving patches through PyPI's si4onnx engine, for benchmarks/images.py; environment as in _si4onnx.py.

Called with a file {middle, direction, statistic, state, seconds}; prints one line of JSON. torchvision is not in that
environment, so that ResNet-18 is written out here; its weights come with the task.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import onnx
import torch
from _si4onnx import without_identities
from si4onnx.nn import NN
from torch import nn


class Block(nn.Module):
    """ResNet's basic block, with torchvision's names."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """torchvision's ResNet-18 without its last layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for i, (inputs, outputs, stride) in enumerate(((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)), 1):
            setattr(self, f"layer{i}", nn.Sequential(Block(inputs, outputs, stride), Block(outputs, outputs, 1)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return torch.flatten(self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x))))), 1)


def main() -> None:
    task = torch.load(sys.argv[1])
    torch.set_num_threads(1)
    network = ResNet18().eval()
    network.load_state_dict(task["state"])
    a = torch.stack([task["middle"], task["middle"]]).double()
    b = torch.stack([task["direction"], -task["direction"]]).double()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "resnet18.onnx")
        torch.onnx.export(network, a.float(), path, opset_version=13, dynamo=False)
        model = NN(without_identities(onnx.load(path)), memoization=False)
    z, count, low, high = float(task["statistic"]), 0, -torch.inf, torch.inf
    with torch.no_grad():
        difference = float((model.forward(a + z * b) - network.double()(a + z * b)).abs().max())
    low, high = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    started = time.process_time()
    while time.process_time() - started < float(task["seconds"]):
        upper = float(model.forward_si(a + z * b, a, b, low, high, z)[-1])
        z = max(upper, z) + 1e-9
        count += 1
    spent = time.process_time() - started
    print(json.dumps({"pieces": count, "seconds": spent, "difference": difference}))


if __name__ == "__main__":
    main()
