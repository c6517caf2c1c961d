"""Networks as feature maps of images: preprocessing, weights by their exact name, truncation at a named layer.

The test is about pixels, so that everything between them and the features belongs into one module: gray to colour, the
order of the channels, normalisation and upsampling are affine, and the network itself is piecewise linear.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sigad.data.sealed import damaged
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError
from sigad.models.architectures import TRAINED, build, train_small_cnn
from sigad.models.weights import fetch_weights, read_onnx, read_state, squeezenet_names, torchvision_weights

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

    mean: Tensor
    std: Tensor

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


def save_features(entry: Mapping[str, Any], module: ImageFeatures, path: str | Path) -> None:
    """Write a feature map, the entry that describes it and a checksum to one file."""
    plain, state = {key: value for key, value in entry.items() if value is not None}, module.state_dict()
    torch.save({"entry": plain, "state": state, "checksum": _checksum(plain, state)}, path)


def restore_features(path: str | Path) -> ImageFeatures:
    """Read what :func:`save_features` wrote; MissingDataError or InvalidInputError if it is not there or damaged."""
    if not Path(path).is_file():
        raise MissingDataError(f"there is no file {path}: run the rule that prepares the features first")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        entry, checksum = content["entry"], content["checksum"]
    except Exception as error:  # torch.load has no error of its own for what is not its file
        raise damaged(path, "cannot be read as one that sigad wrote") from error
    if checksum != _checksum(entry, content["state"]):
        raise damaged(path, "was altered after it was written")
    architecture = _architecture(entry)
    network = read_onnx(entry["path"]) if architecture == "onnx" else build(architecture)
    module = _assemble(entry, network)
    module.load_state_dict(content["state"])
    return module.eval().requires_grad_(False)


def _checksum(entry: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(repr(sorted(entry.items())).encode())
    for name, tensor in state.items():
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def load_features(entry: Mapping[str, Any], data_dir: str | Path = "data", *, seed: int = 0) -> ImageFeatures:
    """The feature map that an entry of the section ``features`` of the configuration describes.

    Parameters
    ----------
    entry : ``weights``, the exact name of torchvision weights (downloaded on first use); or ``architecture`` and
        ``path``, a file of weights, or of the whole network where the architecture is ``onnx``; ``pixels`` has none; or
        ``train: textures``, the small CNN of the quick run; ``layer``, the name of the last layer, null for the whole
        network; and the parameters of :class:`ImageFeatures`.
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
    elif architecture == "pixels":
        network = build(architecture)
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
    if entry.get("architecture") == "pixels" or (entry.get("architecture") and entry.get("path")):
        return entry["architecture"]
    raise ConfigurationError(
        "features need `weights`, or `architecture` and `path`, or `train: textures`, or `architecture: pixels`"
    )


def _assemble(entry: Mapping[str, Any], network: nn.Module) -> ImageFeatures:
    names = ("mean", "std", "scale", "bgr", "nhwc", "resize", "pool")
    options: dict[str, Any] = {key: entry[key] for key in names if entry.get(key) is not None}
    if entry.get("weights"):
        transforms = torchvision_weights(entry["weights"]).transforms()
        options = {"mean": transforms.mean, "std": transforms.std, "scale": 1 / 255} | options
    if entry.get("train"):
        options = TRAINED | options
    if entry.get("layer"):
        network = Truncated(network, entry["layer"])
    return ImageFeatures(network, **options)
