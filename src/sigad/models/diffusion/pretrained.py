"""The noise predictor as a model of diffusers, which saves it, and by which it can be shared."""

from sigad.models.diffusion.diffusers_parts import ConfigMixin, ModelMixin, register_to_config
from sigad.models.diffusion.unet import UNet


class PiecewiseLinearUNet(UNet, ModelMixin, ConfigMixin):
    """:class:`~sigad.models.diffusion.unet.UNet` with ``save_pretrained`` and ``from_pretrained`` (config.json and
    safetensors)."""

    @register_to_config
    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, ...] = (32, 64, 128, 256),
        embedding: int = 100,
        activation: str = "relu",
    ):
        super().__init__(channels, widths, embedding, activation)
