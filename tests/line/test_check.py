"""sigad.check: where the engine stops, and why."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sigad
from sigad.models.vision import import_torchvision


def network(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), activation)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ModuleDict({"block": block})["block"], nn.Flatten()).eval()


def test_what_can_be_taken():
    found = sigad.check(network(nn.ReLU(inplace=True)), (1, 6, 6))
    assert found and found.submodule is found.operation is None
    assert str(found) == "The exact engine takes Sequential on instances of shape (1, 6, 6)."


def test_the_submodule_and_the_operation_are_named():
    net = network(nn.SiLU())
    found = sigad.check(net, (1, 6, 6))
    assert not found and (found.submodule, found.operation) == ("2.1", "silu")
    assert isinstance(net.get_submodule(found.submodule), nn.SiLU) and "sigad.line.piecewise" in found.reason
    assert len(str(found).splitlines()) == 3 and "'2.1'" in str(found) and repr(found) == str(found)
    assert sigad.check(sigad.line.piecewise(net), (1, 6, 6))
    assert not net[2][1]._forward_hooks and not net[2][1]._forward_pre_hooks  # nothing is left behind


def test_after_a_submodule_has_returned_its_parent_is_named():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.one(x) * self.two(x)

    found = sigad.check(nn.Sequential(nn.Linear(3, 3), Gate()), (3,))
    assert (found.submodule, found.operation) == ("1", "mul")


@pytest.mark.parametrize(("module", "shape", "words"), [
    (network(nn.ReLU()), (3, 6, 6), "channels"),  # of another shape than the module takes
    (nn.Sequential(nn.BatchNorm1d(3)), (3,), "eval"),
    (lambda x: torch.softmax(x, 1), (3,), "logits"),
    (lambda x: (None, "text"), (3,), "no tensor"),
    (lambda x: x + torch.rand(3), (3,), "random"),
    (lambda x: F.relu(x) if type(x) is torch.Tensor else x, (3,), "exact type"),
])  # fmt: skip
def test_other_obstacles(module, shape, words):
    found = sigad.check(module, shape)
    assert not found and words in found.reason


def test_networks_of_torchvision():
    models = import_torchvision().models
    torch.manual_seed(0)
    assert sigad.check(models.resnet18().eval(), (3, 32, 32))
    found = sigad.check(models.efficientnet_b0().eval(), (3, 32, 32))
    assert (found.submodule, found.operation) == ("features.0.2", "silu")


def test_torch_is_imported_only_when_it_is_called():
    code = "import sys, sigad; assert 'torch' not in sys.modules; sigad.check; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
