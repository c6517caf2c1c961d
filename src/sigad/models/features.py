"""Networks as feature maps of images: preprocessing, weights by their exact name, truncation at a named layer.

The test is about pixels, so that everything between them and the features belongs into one module: gray to colour, the
order of the channels, normalisation and upsampling are affine, and the network itself is piecewise linear.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError

logger = logging.getLogger(__name__)

# What the small CNN of the quick run expects: gray pixels 0..255, centred and scaled.
TRAINED = {"mean": (128.0,), "std": (64.0,)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class _Reached(Exception):
    """Carries the output of the layer at which a truncated network stops."""

    def __init__(self, output):
        self.output = output


class Truncated(nn.Module):
    """A network up to and with one of its layers, by the layer's name in ``named_modules()``.

    The network is run as it is and left at the layer, so that any architecture can be truncated; nothing behind the
    layer is computed.

    Raises ConfigurationError, with the names there are, for an unknown layer.
    """

    def __init__(self, network: nn.Module, layer: str):
        super().__init__()
        names = [name for name, _ in network.named_modules() if name]
        if layer not in names:
            raise ConfigurationError(f"the network has no layer {layer!r}; its layers are: {', '.join(names)}")
        self.network, self.layer = network, layer

    def forward(self, x: Tensor) -> Tensor:
        def leave(module, inputs, output):
            raise _Reached(output)

        hook = self.network.get_submodule(self.layer).register_forward_hook(leave)
        try:
            self.network(x)
        except _Reached as reached:
            return reached.output
        finally:
            hook.remove()
        raise ConfigurationError(f"the network does not run through its layer {self.layer!r}")


class ImageFeatures(nn.Module):
    """Pixels to features: an affine preprocessing, a network, and optionally the mean over each channel.

    Parameters
    ----------
    network : sees (m, 3, H, W), or (m, 1, H, W) if ``mean`` has one entry.
    mean, std : of each channel, subtracted and divided by, in the units of the pixels after ``scale``.
    scale : multiplied with the pixels first, for instance 1/255.
    bgr : the network expects the channels in the order blue, green, red.
    nhwc : the network expects the channels last, (m, H, W, 3), as those from TensorFlow do.
    resize : (H, W) that the network sees, by bilinear interpolation; None to leave the size.
    pool : take the mean of each channel of the output over its positions.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        scale: float = 1.0,
        bgr: bool = False,
        nhwc: bool = False,
        resize: tuple[int, int] | None = None,
        pool: bool = True,
    ):
        super().__init__()
        self.network, self.scale, self.bgr, self.nhwc = network, scale, bgr, nhwc
        self.resize, self.pool = resize, pool
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64).reshape(-1, 1, 1).float())
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64).reshape(-1, 1, 1).float())

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale
        if x.shape[-3] == 1 and len(self.mean) == 3:
            x = torch.cat([x, x, x], dim=-3)
        if self.bgr:
            x = torch.cat([x[:, 2:3], x[:, 1:2], x[:, 0:1]], dim=1)
        x = (x - self.mean) / self.std
        if self.resize is not None:
            x = F.interpolate(x, size=self.resize, mode="bilinear", align_corners=False)
        x = self.network(x.permute(0, 2, 3, 1) if self.nhwc else x)
        return x.mean(dim=(2, 3)) if self.pool and x.ndim == 4 else x


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that subsamples and pads with zero channels (He et al. 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet of depth 6 blocks + 2 for 32x32 images (He et al. 2016, section 4.2); 20 layers for three blocks."""

    def __init__(self, blocks: int = 3, classes: int = 10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for i, (inputs, outputs, stride) in enumerate(((16, 16, 1), (16, 32, 2), (32, 64, 2)), 1):
            layers = [
                CifarBlock(inputs if b == 0 else outputs, outputs, stride if b == 0 else 1) for b in range(blocks)
            ]
            setattr(self, f"layer{i}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def small_cnn(channels: int = 1, classes: int = 12) -> nn.Sequential:
    """The small network of the quick run: three convolutions with batch norm and ReLU, and max pooling between."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(channels, 16),
        nn.MaxPool2d(2),
        *block(16, 32),
        nn.MaxPool2d(2),
        *block(32, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


def torchvision_weights(name: str):
    """The weights of an exact name such as ``ResNet18_Weights.IMAGENET1K_V1``.

    Raises ConfigurationError, with the nearest names there are, for an unknown one.
    """
    from sigad.models.vision import import_torchvision

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
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        _download(url or weights.url, partial, name, path)
        _check_prefix(partial, prefix, name)
        os.replace(partial, path)
    _check_prefix(path, prefix, name)
    return path


def _download(url: str, partial: Path, name: str, path: Path) -> None:
    try:
        if urlparse(url).scheme == "file":
            shutil.copyfile(url2pathname(urlparse(url).path), partial)
        else:
            torch.hub.download_url_to_file(url, str(partial), progress=False)
    except Exception as error:  # whatever the transport raises: the reader needs the address and a way out
        partial.unlink(missing_ok=True)
        raise MissingDataError(
            f"the weights {name} could not be downloaded from {url} ({error}): try again with a network connection, or "
            f"put the file at {path}"
        ) from error


def _check_prefix(path: Path, prefix: str, name: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(prefix):
        if path.suffix == ".part":
            path.unlink()
        raise InvalidInputError(
            f"the file of the weights {name} has sha256 {found}, which should begin with {prefix}: remove {path} and "
            "fetch it again"
        )


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


def build(architecture: str) -> nn.Module:
    """An architecture without weights: ``small_cnn``, ``cifar_resnet20``, or the name of a torchvision model."""
    if architecture == "small_cnn":
        return small_cnn()
    if architecture == "cifar_resnet20":
        return CifarResNet(3)
    from sigad.models.vision import import_torchvision

    models = import_torchvision().models
    if architecture not in models.list_models(module=models):
        raise ConfigurationError(
            f"there is no architecture {architecture!r}: choose small_cnn, cifar_resnet20, or a torchvision model such "
            "as resnet18"
        )
    return models.get_model(architecture, weights=None)


def read_onnx(path: str | Path) -> nn.Module:
    """The network in an ONNX file as a torch module; its layers have the names of the nodes.

    Raises MissingDataError when the file or the package onnx2torch is not there.
    """
    from sigad.models.vision import import_torchvision

    if not Path(path).is_file():
        raise MissingDataError(f"there is no file {path}: put it there, or correct `features: path`")
    import_torchvision()  # onnx2torch does so itself, but not where its operators are missing
    try:
        import onnx2torch
    except ImportError as error:
        raise MissingDataError(f"{error}: networks in ONNX files need it, pip install 'sigad[onnx]'") from error
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


def train_small_cnn(
    images: Mapping[str, NDArray[np.uint8]], *, seed: int, steps: int = 600, size: int = 16, batch: int = 64
) -> nn.Sequential:
    """Train :func:`small_cnn` to tell textures and quarter turns apart, from random crops; about twenty seconds.

    The images must be used for nothing else: features that saw an instance under test would be part of the selection.

    Parameters
    ----------
    images : (H, W) gray images by name.
    seed : of the initial weights and the crops.
    steps, size, batch : number of gradient steps, side of the crops, crops per step.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = small_cnn(1, 4 * len(images)).train()
    pixels = list(images.values())
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        which, turn = rng.integers(len(pixels), size=batch), rng.integers(4, size=batch)
        crops = []
        for i, t in zip(which, turn, strict=True):
            row, column = (rng.integers(side - size + 1) for side in pixels[i].shape)
            crops.append(np.rot90(pixels[i][row : row + size, column : column + size], t))
        x = (torch.from_numpy(np.stack(crops)[:, None].astype(np.float32)) - TRAINED["mean"][0]) / TRAINED["std"][0]
        loss = F.cross_entropy(network(x), torch.from_numpy(4 * which + turn))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    logger.info("trained a small CNN: cross entropy of the last batch %.3f", loss.item())
    return network.eval()


def save_features(entry: Mapping[str, Any], module: ImageFeatures, path: str | Path) -> None:
    """Write a feature map and the entry that describes it to one file."""
    plain = {key: value for key, value in entry.items() if value is not None}
    torch.save({"entry": plain, "state": module.state_dict()}, path)


def restore_features(path: str | Path) -> ImageFeatures:
    """Read what :func:`save_features` wrote; raises MissingDataError if there is no such file."""
    if not Path(path).is_file():
        raise MissingDataError(f"there is no file {path}: run the rule that prepares the features first")
    content = torch.load(path, map_location="cpu", weights_only=True)
    entry, architecture = content["entry"], _architecture(content["entry"])
    network = read_onnx(entry["path"]) if architecture == "onnx" else build(architecture)
    module = _assemble(entry, network)
    module.load_state_dict(content["state"])
    return module.eval().requires_grad_(False)


def load_features(entry: Mapping[str, Any], data_dir: str | Path = "data", *, seed: int = 0) -> ImageFeatures:
    """The feature map that an entry of the section ``features`` of the configuration describes.

    Parameters
    ----------
    entry : ``weights``, the exact name of torchvision weights (downloaded on first use); or ``architecture`` and
        ``path``, a file of weights, or of the whole network where the architecture is ``onnx``; or ``train: textures``,
        the small CNN of the quick run; ``layer``, the name of the last layer, null for the whole network; and the
        parameters of :class:`ImageFeatures`.
    data_dir : folder of downloaded files.
    seed : of the training.

    Returns
    -------
    The module, in eval mode, without gradients.
    """
    architecture = _architecture(entry)
    if entry.get("train"):
        from sigad.data.images import texture_strips

        network = train_small_cnn(texture_strips(), seed=seed)
    elif architecture == "onnx":
        network = read_onnx(entry["path"])
    else:
        network = build(architecture)
        if entry.get("weights"):
            state = read_state(fetch_weights(entry["weights"], data_dir, url=entry.get("url")))
        else:
            state = read_state(entry["path"])
        if architecture == "squeezenet1_1" and "conv1.weight" in state:
            state = squeezenet_names(state)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise InvalidInputError(f"the weights do not fit the architecture {architecture}: {error}") from error
    return _assemble(entry, network).eval().requires_grad_(False)


def _architecture(entry: Mapping[str, Any]) -> str:
    if entry.get("train"):
        if entry["train"] != "textures":
            raise ConfigurationError(f"train must be textures, not {entry['train']!r}")
        return "small_cnn"
    if entry.get("weights"):
        return entry["weights"].partition("_Weights")[0].lower()
    if entry.get("architecture") and entry.get("path"):
        return entry["architecture"]
    raise ConfigurationError("features need `weights`, or `architecture` and `path`, or `train: textures`")


def _assemble(entry: Mapping[str, Any], network: nn.Module) -> ImageFeatures:
    names = ("mean", "std", "scale", "bgr", "nhwc", "resize", "pool")
    options = {key: entry[key] for key in names if entry.get(key) is not None}
    if entry.get("weights"):
        transforms = torchvision_weights(entry["weights"]).transforms()
        options = {"mean": transforms.mean, "std": transforms.std, "scale": 1 / 255} | options
    if entry.get("train"):
        options = TRAINED | options
    if entry.get("layer"):
        network = Truncated(network, entry["layer"])
    return ImageFeatures(network, **options)
