"""What is used of diffusers, which may import torchvision, which may need a hand (:mod:`sigad.models.vision`)."""

try:
    from diffusers import DDIMScheduler
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.models.modeling_utils import ModelMixin
except RuntimeError:
    from sigad.models.vision import import_torchvision

    import_torchvision()
    from diffusers import DDIMScheduler
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.models.modeling_utils import ModelMixin

__all__ = ["ConfigMixin", "DDIMScheduler", "ModelMixin", "register_to_config"]
