"""Weights of networks: torchvision's by their exact name, files of PyTorch, numpy and ONNX."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn

from sigad.data.files import download
from sigad.errors import ConfigurationError, MissingDataError
from sigad.models.vision import import_torchvision
from sigad.optional import needs


def torchvision_weights(name: str):
    """The weights of an exact name such as ``ResNet18_Weights.IMAGENET1K_V1``.

    Raises ConfigurationError, with the nearest names there are, for an unknown one.
    """
    models = import_torchvision().models
    owner, _, member = name.partition(".")
    enum = getattr(models, owner, None)
    if not (owner.endswith("_Weights") and hasattr(enum, "__members__")):
        known = [n for n in dir(models) if n.endswith("_Weights")]
        raise ConfigurationError(f"torchvision has no weights {name!r}; it has {', '.join(known)}")
    if member not in enum.__members__:
        raise ConfigurationError(f"{owner} has no {member!r}, only {', '.join(enum.__members__)}")
    return enum[member]


def weights_path(name: str, data_dir: str | Path) -> Path:
    """Where downloaded weights lie: ``<data_dir>/weights/<name>.pth``."""
    return Path(data_dir) / "weights" / f"{name}.pth"


def fetch_weights(name: str, data_dir: str | Path, *, url: str | None = None) -> Path:
    """Make the torchvision weights of an exact name available as a file, downloading them if need be.

    The digest that torchvision puts into the file name is checked. ``url`` replaces torchvision's address, for a mirror
    (``file://`` as well).

    Raises MissingDataError, saying what to do, when they cannot be downloaded, and InvalidInputError when the file is
    not the one that is meant.
    """
    weights, path = torchvision_weights(name), weights_path(name, data_dir)
    prefix = Path(urlparse(weights.url).path).stem.rpartition("-")[2]
    way_out = f"try again with a network connection, or put the weights {name} at {path}"
    return download(url or weights.url, path, sha256=prefix, way_out=way_out)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights: a PyTorch file (of tensors only) or an ``.npz`` of arrays.

    A ``state_dict`` inside a checkpoint is found, and the prefix ``module.`` of parallel training is removed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"there is no file of weights {path}: put it there, or correct `features: path`")
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name.replace("/", "."): torch.from_numpy(arrays[name]) for name in arrays.files}
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {name.removeprefix("module."): value for name, value in state.items()}


def read_onnx(path: str | Path) -> nn.Module:
    """The network in an ONNX file as a torch module; its layers have the names of the nodes.

    Raises MissingDataError when the file is not there, MissingPackageError when onnx2torch is not installed.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"there is no file {path}: put it there, or correct `features: path`")
    import_torchvision()  # onnx2torch does so itself, but not where its operators are missing
    with needs("onnx"):
        import onnx2torch
    return onnx2torch.convert(str(path)).eval()


def squeezenet_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of SqueezeNet 1.1 from their Caffe names (``fire2.squeeze1x1``) to torchvision's."""
    places = {"conv1": "features.0", "conv10": "classifier.1"}
    places |= {f"fire{i}": f"features.{j}" for i, j in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True)}
    result = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        result[f"{places[first]}.{rest.replace('squeeze1x1', 'squeeze')}"] = value
    return result
