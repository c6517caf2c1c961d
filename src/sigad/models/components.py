"""Reconstruction by principal components: the simplest detector, linear, without training."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sigad.checks import real_array, whole_number
from sigad.errors import InvalidInputError


class ComponentReconstruction(nn.Module):
    """mean + V'V (x - mean): the nearest image in the span of the first principal components of normal images.

    With no components it is the mean normal image, and the score of a pixel is how far it is from that.

    Parameters
    ----------
    images : (N, C, H, W) normal images.
    components : how many; fewer than N.

    Raises
    ------
    InvalidInputError
        for images of another shape, NaN, and more components than images.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, images: ArrayLike | Tensor, components: int = 0):
        super().__init__()
        array, components = real_array(images, "images"), whole_number(components, "components", least=0)
        if array.ndim != 4 or not components < len(array):
            raise InvalidInputError(
                f"{components} components need more images (N, C, H, W) than that, not {array.shape}"
            )
        flat = torch.from_numpy(array).flatten(1)
        self.register_buffer("mean", flat.mean(0))
        basis = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:components] if components else flat[:0]
        self.register_buffer("basis", basis)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of x (B, C, H, W), in the same shape."""
        deviation = x.flatten(1) - self.mean
        return (self.mean + (deviation @ self.basis.T) @ self.basis).reshape(x.shape)
