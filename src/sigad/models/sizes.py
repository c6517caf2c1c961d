"""Sizes of images, for networks that halve them a few times and double them again."""

from torch import Tensor

from sigad.errors import InvalidInputError


def require_divisible(x: Tensor, halvings: int) -> None:
    """Raise InvalidInputError unless height and width of images (B, C, H, W) can be halved so often."""
    height, width = x.shape[-2:]
    if height % 2**halvings or width % 2**halvings:
        raise InvalidInputError(
            f"the network halves images {halvings} times: height and width must be divisible by {2**halvings}, "
            f"not {height} x {width}; prepare images of another size, or give fewer widths"
        )
