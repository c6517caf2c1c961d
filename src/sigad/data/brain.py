"""Brains in slices of magnetic resonance images: where they are, and intensities that can be compared.

The scale of these images is arbitrary: it differs between scanners and patients. What is computed here depends on the
one slice alone, so that a test may take its result for the data.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sigad.errors import InvalidInputError

Intensity = Literal["none", "zscore", "robust", "ranks"]
INTENSITIES = ("none", "zscore", "robust", "ranks")

_AIR = 0.25
"""Air is darker than this share of the mean of what is brighter than the mean."""

_SKULL = 0.24
"""The skull lies in this outer share of a ray from the middle of the head, the scalp in half of it."""

_RAYS = 180


def head_mask(image: NDArray) -> NDArray[np.bool_]:
    """The head in a slice (H, W): the largest connected part that is brighter than air or enclosed by it.

    Empty where nothing is brighter than the rest.
    """
    from scipy import ndimage

    image = np.asarray(image, np.float64)
    bright = image[image > image.mean()]
    if not bright.size:
        return np.zeros(image.shape, bool)
    low = image.min()
    found = ndimage.binary_opening(ndimage.binary_fill_holes(image - low > _AIR * (bright.mean() - low)))
    labels, count = ndimage.label(found)
    if not count:
        return np.zeros(image.shape, bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def brain_mask(image: NDArray) -> NDArray[np.bool_]:
    """The brain in a slice (H, W) of a head, without scalp and skull; empty where there is no head.

    On each ray from the middle of the head outwards, the scalp is where the image is brightest near the border, and the
    skull where it is darkest next to it; the median over neighbouring rays is taken. A crude skull stripping, meant for
    slices above the eyes: what it leaves of the scalp has to be learned as normal. Volumes that come with a mask of the
    brain do not need it.
    """
    from scipy import ndimage

    head = head_mask(image)
    if not head.any():
        return head
    middle = np.array(ndimage.center_of_mass(head))
    angles = np.linspace(-np.pi, np.pi, _RAYS, endpoint=False)
    way = np.stack([np.sin(angles), np.cos(angles)])
    steps = np.arange(0.0, np.hypot(*head.shape), 0.5)
    rays = middle[:, None, None] + way[:, :, None] * steps
    inside = ndimage.map_coordinates(head.astype(float), rays, order=0)
    border = steps[inside.shape[1] - 1 - np.argmax(inside[:, ::-1] > 0, axis=1)]
    shares = np.linspace(1 - _SKULL, 1.0, 24)
    points = middle[:, None, None] + way[:, :, None] * (border[:, None] * shares)
    # Across the rays too, so that a furrow of the brain is not taken for the skull.
    profile = ndimage.uniform_filter1d(ndimage.map_coordinates(image, points, order=1), 9, axis=0, mode="wrap")
    scalp = shares.size // 2 + profile[:, shares.size // 2 :].argmax(axis=1)
    profile[np.arange(shares.size) >= scalp[:, None]] = np.inf
    skull = ndimage.median_filter(shares[profile.argmin(axis=1)], _RAYS // 12, mode="wrap") * border
    offset = np.indices(head.shape) - middle[:, None, None]
    angle = np.arctan2(offset[0], offset[1])
    radius = np.interp(angle.ravel(), angles, skull, period=2 * np.pi).reshape(head.shape)
    return head & (np.hypot(*offset) < radius)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a mask (H, W) that is not empty; bottom and right are exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def normalise(image: NDArray, mask: NDArray[np.bool_], intensity: Intensity) -> NDArray[np.float32]:
    """Bring the intensities of an image (C, H, W) inside a mask (H, W) to a common scale, each channel on its own.

    Parameters
    ----------
    intensity : ``"none"``; ``"zscore"``, mean 0 and standard deviation 1; ``"robust"``, median 0 and median absolute
        deviation that of a standard normal, which a tumour moves less; ``"ranks"``, normal quantiles of the ranks.

    Raises
    ------
    InvalidInputError
        when the image is constant inside the mask.
    """
    if intensity not in INTENSITIES:
        raise InvalidInputError(f"intensity must be one of {', '.join(INTENSITIES)}, not {intensity!r}")
    image = np.array(image, np.float64)
    if intensity == "none":
        return image.astype(np.float32)
    for plane in image:
        values = plane[mask]
        if intensity == "ranks":
            from scipy.special import ndtri
            from scipy.stats import rankdata

            scaled, spread = ndtri((rankdata(values) - 0.5) / max(values.size, 1)), np.ptp(values) if values.size else 0
        else:
            centre = np.mean(values) if intensity == "zscore" else np.median(values)
            scaled = values - centre
            spread = np.std(values) if intensity == "zscore" else 1.4826 * np.median(np.abs(scaled))
            scaled = scaled / spread if spread > 0 else scaled
        if not spread > 0:
            raise InvalidInputError("the image is constant where it should be normalised")
        plane[mask] = scaled
    return image.astype(np.float32)
