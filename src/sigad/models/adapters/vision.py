"""Networks of torchvision, timm and diffusers, for :func:`sigad.knn_test` and :func:`sigad.localization_test`."""

import copy

from torch import Tensor, nn

from sigad.errors import InvalidInputError

HEADS = ("fc", "classifier", "heads", "head")
"""Names that torchvision gives to the last part of its networks."""


def without_head(network: nn.Module) -> nn.Module:
    """A copy of a classifier of timm or torchvision that returns the features its last layer sees, in evaluation mode.

    It is what ``knn_test(..., features=..., engine="lattice")`` takes, vision transformers included.

    Raises
    ------
    InvalidInputError : the network has no head that is known.
    """
    network = copy.deepcopy(network)
    reset = getattr(network, "reset_classifier", None)
    if callable(reset):  # timm
        reset(0)
        return network.eval()
    for name in HEADS:
        if isinstance(getattr(network, name, None), nn.Module):
            setattr(network, name, nn.Identity())
            return network.eval()
    raise InvalidInputError(
        f"{type(network).__name__} has no head named {', '.join(HEADS)}: wrap it in a module that returns features"
    )


class NoisePredictor(nn.Module):
    """A diffusers model, such as UNet2DModel, as :class:`~sigad.models.diffusion.reconstruct.Reconstruction` takes it.

    Group norm, SiLU and attention are no obstacle to ``localization_test(Reconstruction(NoisePredictor(unet), noises),
    ..., engine="lattice")``. The noises must be those of the schedule that the model was trained with.
    """

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet
        self.train(unet.training)

    def forward(self, x: Tensor, time: int) -> Tensor:
        return self.unet(x, time).sample
