"""All that the localization test of real images needs and that is fixed before a test image is looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from sigad.checks import share, whole_number
from sigad.data.image_noise import KINDS, HeldOut, ImageCovariance, choose
from sigad.data.stack import ImageStack
from sigad.errors import InvalidInputError
from sigad.localization.coarse import CoarseMap, parse_resolution
from sigad.localization.contrast import ReferenceScale
from sigad.localization.detector import Detector
from sigad.localization.regions import RegionsResult
from sigad.localization.test import LocalizationResult, localization_test


@dataclass(frozen=True, eq=False)
class Setup:
    """A detector with its threshold, and the noise model, references and mask of its test; made by :func:`set_up`.

    Attributes
    ----------
    detector : its module, threshold, filter and mask.
    coarse : the map from marked pixels to what is tested.
    covariance : of the noise of one image: the chosen model with the scale of the references, or the model with the
        spread that the statistic has on held-out patients as its ``scale``.
    references : (R, C, H, W), of one patient each.
    noise : how every noise model did on held-out patients.
    """

    detector: Detector
    coarse: CoarseMap
    covariance: ImageCovariance | ReferenceScale
    references: NDArray[np.float64]
    noise: Mapping[str, HeldOut]

    def __repr__(self) -> str:
        tried = ", ".join(f"{k} {h.log_likelihood:.3f} (spread {h.spread:.2f})" for k, h in self.noise.items())
        return (
            f"Setup(threshold {self.detector.threshold:.4g}, {len(self.references)} references, "
            f"noise {type(self.model).__name__}; held-out log-likelihood per number: {tried})"
        )

    @property
    def model(self) -> ImageCovariance:
        """The noise model, with its held-out scale."""
        model = self.covariance.shape if isinstance(self.covariance, ReferenceScale) else self.covariance
        assert isinstance(model, ImageCovariance), "set_up chooses among these"
        return model

    def test(self, x: ArrayLike, **options: Any) -> LocalizationResult | RegionsResult:
        """:func:`sigad.localization.localization_test` of an image (C, H, W), with its other options."""
        detector = self.detector
        return localization_test(
            detector.score_map.reconstruct,
            x,
            self.references,
            threshold=detector.threshold,
            covariance=self.covariance,
            filter_size=detector.score_map.filter_size,
            within=detector.within,
            resolution=self.coarse,
            **options,
        )

    def tested(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pixels (B, H, W) that are tested where these are marked."""
        return self.detector.inside(self.coarse.tested(masks))


def set_up(
    stack: ImageStack,
    reconstruct: nn.Module,
    *,
    flagged: float = 0.3,
    resolution: int | ArrayLike | CoarseMap = 8,
    filter_size: int = 3,
    kinds: Sequence[str] = KINDS,
    scale: Literal["references", "held-out"] = "references",
    seed: int = 0,
) -> Setup:
    """Choose a threshold, a noise model and references from the images of a stack that are not for testing.

    Images for ``noise`` give the threshold and the noise model, those for ``reference`` the references and the regions
    by which the noise model is judged; only pixels of the brain common to most training images are looked at.

    Parameters
    ----------
    reconstruct : trained on the images for ``train``, in eval mode; see :func:`localization_test`.
    flagged : share of the normal images in which something is to be marked. Small: few false detections, and small
        regions. It costs validity nothing.
    resolution, filter_size : of the test, fixed beforehand.
    kinds : noise models to choose from, :data:`sigad.data.image_noise.KINDS`.
    scale : of the noise. ``"references"``, what the references say about the very pixels that are tested, with the
        exact law of an estimated scale (:class:`~sigad.localization.contrast.ReferenceScale`); each patient for the
        reference gives one image, drawn at random. ``"held-out"``, the spread of the statistic on held-out patients,
        taken for the truth; each patient gives the mean of its images.
    seed : of the folds by which the models are judged, and of the references that are drawn.
    """
    if scale not in ("references", "held-out"):
        raise InvalidInputError(f"scale must be references or held-out, not {scale!r}")
    if not isinstance(stack, ImageStack):
        raise InvalidInputError(f"stack must be an ImageStack (ImageStack.load reads one), not {type(stack).__name__}")
    flagged, seed = share(flagged, "flagged"), whole_number(seed, "seed", least=0)
    within, coarse = stack.common(), parse_resolution(resolution)
    if not within.any():
        raise InvalidInputError(f"the brains of {stack.name} have no pixel in common: align them")
    noise, reference = stack.of("noise"), stack.of("reference")
    detector = Detector(reconstruct, threshold=0.0, filter_size=filter_size, within=within)
    highest = detector.scores(noise)[:, within].max(1)
    threshold = float(np.quantile(highest, 1 - flagged))
    detector = Detector(reconstruct, threshold=threshold, filter_size=filter_size, within=within)
    regions = coarse.tested(detector.masks(reference)) & within
    regions = regions[regions.any((1, 2))]
    if not len(regions):
        raise InvalidInputError(
            f"the detector marks nothing in the {len(reference)} reference images: choose a larger share `flagged`"
        )
    covariance, tried = choose(noise, stack.groups[stack.which("noise")], regions, seed=seed, kinds=kinds)
    groups = stack.groups[stack.which("reference")]
    own = [reference[groups == group] for group in np.unique(groups)]
    if scale == "held-out":
        return Setup(detector, coarse, covariance, np.stack([images.mean(0) for images in own]), tried)
    if len(own) < 2:
        raise InvalidInputError(
            f"{stack.name} has one patient for the reference, which tells no scale: give more, or take scale='held-out'"
        )
    rng = np.random.default_rng(seed)
    references = np.stack([images[rng.integers(len(images))] for images in own])
    return Setup(detector, coarse, ReferenceScale(covariance), references, tried)
