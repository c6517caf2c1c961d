"""Networks in ONNX files: against ONNX's own evaluator, and exactly on a line."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sigad.errors import MissingDataError, MissingPackageError
from sigad.line import restrict
from sigad.models.features import load_features, restore_features, save_features
from sigad.models.weights import read_onnx
from tests.real_data import shared


@pytest.fixture
def path(tmp_path):
    """A network of the shape that converters from TensorFlow write: channels last outside, first inside; a shortcut."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(size=(6, 3, 3, 3)) / 5,
        "b1": rng.normal(size=6) / 5,
        "w2": rng.normal(size=(6, 6, 3, 3)) / 7,
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="Relu_1"),
        helper.make_node("MaxPool", ["r1"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["m", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "m"], ["a"]),
        helper.make_node("Relu", ["a"], ["r2"], name="Relu_2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["y"], name="pool"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6, 1, 1])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def check_on_a_line(module, shape):
    module, rng = module.double(), torch.Generator().manual_seed(1)
    x, direction = torch.rand(2, *shape, generator=rng, dtype=torch.float64) * 255
    f = restrict(module, x, direction, (-0.05, 0.05), dtype=torch.float64)
    assert f.pieces > 10
    t = torch.linspace(-0.05, 0.05, 23, dtype=torch.float64)
    direct = torch.cat([module((x + s * direction)[None]) for s in t])
    torch.testing.assert_close(f(t), direct, rtol=1e-9, atol=1e-9)


def test_network_equals_the_reference_evaluator(path):
    x = np.random.default_rng(2).normal(size=(4, 8, 8, 3)).astype(np.float32)
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(read_onnx(path)(torch.from_numpy(x)).detach(), expected, rtol=1e-5, atol=1e-6)


def test_features_from_an_onnx_file(path, tmp_path):
    entry = {"architecture": "onnx", "path": str(path), "layer": "Relu_2", "nhwc": True, "bgr": True, "mean": [1, 2, 3]}
    module = load_features(entry)
    x = torch.rand(2, 3, 8, 8) * 9
    shifted = (x[:, [2, 1, 0]] - torch.tensor([1.0, 2.0, 3.0])[:, None, None]).permute(0, 2, 3, 1)
    expected = read_onnx(path)(shifted)[:, :, 0, 0]  # the mean over positions is the network's own last layer
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-6)
    save_features(entry, module, tmp_path / "features.pt")
    torch.testing.assert_close(restore_features(tmp_path / "features.pt")(x), module(x), rtol=0, atol=0)
    check_on_a_line(module, (3, 8, 8))


def test_real_resnet_50_is_exact_on_a_line():
    path = shared("weights/opennsfw_resnet50thin.onnx")
    entry = {"architecture": "onnx", "path": path, "layer": "Relu_18", "nhwc": True, "bgr": True}
    check_on_a_line(load_features(entry | {"mean": [104, 117, 123]}), (3, 32, 32))


def test_what_is_missing_is_named(path, tmp_path, monkeypatch):
    with pytest.raises(MissingDataError, match=r"no file .*gone\.onnx"):
        read_onnx(tmp_path / "gone.onnx")
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'sigad\[onnx\]'"):
        read_onnx(path)
