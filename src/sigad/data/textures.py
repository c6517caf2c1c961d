"""Squares of the textures of scikit-image, some with a synthetic defect: real images without any account."""

from collections.abc import Iterator

import numpy as np

from sigad.data.images import TEXTURES, with_defect
from sigad.data.stack import Series
from sigad.errors import InvalidInputError

_DEFECT_EVERY = 4


def read_texture(name: str, *, side: int = 32) -> Iterator[Series]:
    """Squares of ``side`` pixels from a texture (``brick``, ``grass`` or ``gravel``), each an image of its own.

    Every fourth has a dark or bright spot, whose place is annotated, and is for testing. Neighbouring squares of one
    texture are not independent pictures: good enough to see the pipeline work, not to judge a method.
    """
    if name not in TEXTURES:
        raise InvalidInputError(f"the texture must be one of {', '.join(TEXTURES)}, not {name!r}")
    from skimage import data

    texture = getattr(data, name)()
    rng = np.random.default_rng(list(name.encode()))
    rows, columns = (s // side for s in texture.shape)
    for i in range(rows * columns):
        row, column = (side * p for p in divmod(i, columns))
        pixels, mask = texture[row : row + side, column : column + side], np.zeros((side, side), bool)
        defective = i % _DEFECT_EVERY == 0
        if defective:
            pixels, mask = _spot(pixels, mask, rng)
        title = f"{name}_{row}_{column}"
        yield Series(title, [title], pixels[None, None], mask[None], testing=True if defective else None)


def _spot(pixels, mask, rng):
    """A spot on half of the picture's side."""
    half = pixels.shape[0] // 2
    top, left = rng.integers(0, pixels.shape[0] - half + 1, 2)
    inside = np.s_[top : top + half, left : left + half]
    pixels, mask = pixels.copy(), mask.copy()
    pixels[inside], mask[inside] = with_defect(pixels[inside], rng)
    return pixels, mask
