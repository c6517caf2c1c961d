"""Networks in folders as diffusers writes them: config.json, the arguments of the class, and weights as safetensors.

diffusers, and torchvision with it, takes longer to import than torch: whoever only reads a network does without.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from sigad.data.sealed import damaged
from sigad.errors import MissingDataError
from sigad.optional import needs

with needs("diffusion"):
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"

Network = TypeVar("Network", bound=nn.Module)


def save(network: nn.Module, arguments: Mapping[str, Any], folder: str | Path) -> None:
    """Write a network that its class makes from these arguments, values of JSON, into a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {"_class_name": type(network).__name__, **arguments}
    Path(folder, _CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    save_file(network.state_dict(), Path(folder, _WEIGHTS), metadata={"format": "pt"})


def restore(kind: type[Network], folder: str | Path) -> Network:
    """The network of a class in a folder that :func:`save` or diffusers' ``save_pretrained`` wrote, in eval mode.

    Raises MissingDataError if there is none, and InvalidInputError if it is not one of this class.
    """
    if not Path(folder, _CONFIG).is_file():
        raise MissingDataError(f"there is no network in {folder}: run the pipeline, or train one and save it there")
    try:
        config = json.loads(Path(folder, _CONFIG).read_text(encoding="utf-8"))
        network = kind(**{name: value for name, value in config.items() if not name.startswith("_")})
        network.load_state_dict(load_file(Path(folder, _WEIGHTS)))
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise damaged(folder, f"holds no network of the class {kind.__name__}") from error
    return network.eval()
