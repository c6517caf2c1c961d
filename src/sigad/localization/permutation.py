"""The permutation test, an ablation of the localization paper (Katsuoka et al. 2026). Not exact."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sigad.errors import NumericalError


def permutation_pvalue(
    masks: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    x: NDArray[np.float64],
    x_ref: NDArray[np.float64],
    statistic: Callable[[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]], float],
    observed: float,
    rng: np.random.Generator,
    *,
    permutations: int = 1000,
    batch: int = 64,
    patience: int = 100,
) -> float:
    """Share of the permutations of the pooled pixels of all images whose statistic exceeds the observed one in size.

    The pixels are marked anew in every permuted test image; permutations in which nothing is marked are drawn again.

    Parameters
    ----------
    masks : marks the pixels (B, H, W) of images (B, C, H, W).
    x, x_ref : (C, H, W), and the reference of that shape or (R, C, H, W), several.
    statistic : of a mask, an image and its reference or references.
    permutations : how many that mark a pixel.
    patience : no more than so many times ``permutations`` draws are made.

    Raises
    ------
    NumericalError
        if so many draws do not mark pixels often enough.
    """
    pooled = np.concatenate([x.ravel(), x_ref.ravel()])
    larger = counted = drawn = 0
    while counted < permutations:
        if drawn >= patience * permutations:
            raise NumericalError(f"{drawn} permutations marked a pixel only {counted} times")
        images = np.stack([rng.permutation(pooled) for _ in range(batch)]).reshape(batch, -1, *x.shape)
        drawn += batch
        marked = masks(images[:, 0])
        for which in np.flatnonzero(marked.any(axis=(1, 2)))[: permutations - counted]:
            dealt = images[which, 1:].reshape(x_ref.shape)
            larger += abs(statistic(marked[which], images[which, 0], dealt)) > abs(observed)
            counted += 1
    return larger / permutations
