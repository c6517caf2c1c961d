"""Make torchvision importable beside a PyTorch build for which its compiled operators are missing.

The wheels of torchvision carry operators (non-maximum suppression) that only load beside the build they were compiled
for. Without them `import torchvision` fails, although models and transforms need none of them. Declaring the schemas
is enough: a model that really calls such an operator still fails, loudly. diffusers imports torchvision when it is
there, so call :func:`import_torchvision` before either.
"""

import importlib
import sys
from types import ModuleType

import torch

from sigad.optional import needs

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_LIBRARIES = []  # a torch.library.Library takes its declarations back when it is collected


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring its missing operators if (and only if) the import fails for want of them.

    Returns the module. Raises MissingPackageError when torchvision is not installed, and passes every other failure on.
    """
    try:
        with needs("vision"):
            return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _LIBRARIES:
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # the half-imported package
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS.values():
        library.define(schema)
    _LIBRARIES.append(library)
    return importlib.import_module("torchvision")
