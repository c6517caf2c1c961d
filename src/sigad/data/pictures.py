"""Pictures from files, whatever their mode, and resampling: what every source of whole images shares."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError

_LEVELS = {"L": 255, "RGB": 255, "I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I": 65535}


def read_picture(path: str | Path) -> NDArray[np.float32]:
    """The pixels of a PNG, TIFF, JPEG, ... of a single page as (C, H, W) in [0, 255], with one channel or three.

    Palettes are resolved to their colours, 16-bit pictures divided by 257, black-and-white ones become 0 and 255; a
    palette whose colours are all gray gives one channel.

    Raises
    ------
    InvalidInputError
        for a file that is missing, truncated or no picture, several pages, transparency, or numbers whose scale is not
        known (32-bit); with the file and the reason.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            if pages > 1:
                raise InvalidInputError(f"{path}: {pages} pages in one file; save one page per file")
            picture.load()
            mode = picture.mode
            palette = mode in ("P", "PA")
            if mode == "1":
                picture, mode = picture.convert("L"), "L"
            elif mode in ("P", "PA", "LA", "RGBA"):
                whole = picture.convert("RGBA")
                if np.asarray(whole)[..., 3].min() < 255:
                    raise InvalidInputError(f"{path}: transparent pixels have no value; save it without transparency")
                picture, mode = whole.convert("L" if mode == "LA" else "RGB"), "L" if mode == "LA" else "RGB"
            if mode not in _LEVELS:
                raise InvalidInputError(f"{path}: mode {mode} has no known scale; save it as 8 or 16 bits, gray or RGB")
            array = np.asarray(picture).astype(np.float32) * np.float32(255 / _LEVELS[mode])
    except InvalidInputError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidInputError(f"{path}: {error}") from error
    if array.max(initial=0) > 255:
        raise InvalidInputError(f"{path}: values above 65535; save it as 8 or 16 bits, gray or RGB")
    if array.ndim == 2:
        return array[None]
    array = np.moveaxis(array, -1, 0)
    return array[:1] if palette and (array == array[0]).all() else array


def resample(image: NDArray, size: int, box: tuple[int, int, int, int] | None = None) -> NDArray[np.float32]:
    """Means over the pixels of ``image`` (..., H, W) that fall into each of ``size`` x ``size`` cells.

    ``box`` (top, left, bottom, right) is the part that is taken; it is stretched to a square. Where the result is
    larger than the image, pixels are repeated.
    """
    from PIL import Image

    image = np.asarray(image, np.float32)
    top, left, bottom, right = box or (0, 0, *image.shape[-2:])
    planes = image.reshape(-1, *image.shape[-2:])
    result = [
        np.asarray(Image.fromarray(p).resize((size, size), Image.Resampling.BOX, box=(left, top, right, bottom)))
        for p in planes
    ]
    return np.stack(result).reshape(*image.shape[:-2], size, size)
