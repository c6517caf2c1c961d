"""What is used of diffusers, which imports torchvision, which may need a hand (:mod:`sigad.models.vision`).

Raises MissingPackageError where diffusers is not installed.
"""

from contextlib import suppress

from sigad.errors import MissingPackageError
from sigad.models.vision import import_torchvision
from sigad.optional import needs

with suppress(MissingPackageError):  # diffusers can do without it
    import_torchvision()
with needs("diffusion"):
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.models.modeling_utils import ModelMixin

__all__ = ["ConfigMixin", "ModelMixin", "register_to_config"]
