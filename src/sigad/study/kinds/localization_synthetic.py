"""The kind ``localization_synthetic``: anomaly localization by a diffusion model on synthetic images."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sigad.data import noise
from sigad.data.noise import NoiseFamily
from sigad.data.sealed import check_folder
from sigad.errors import ConfigurationError
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost, Kind
from sigad.study.settings import setting

POOLINGS = 8
"""The network halves an image three times."""


@dataclass(frozen=True)
class LocalizationSynthetic(Kind):
    """Images of noise, independent or with the covariance 0.5^|i - j| in row-major order, and a signal on a random
    square. The noises of the reconstruction are the detector's own randomness."""

    offers = frozenset({"regions", "evaluations", "normals", "pixels", "thinning"})

    size: int = setting(64, f"side of the image in pixels, a multiple of {POOLINGS}", low=POOLINGS, source="paper")
    covariance: str = setting(
        "identity",
        "of the noise; ar1: 0.5^abs(i - j) in row-major order",
        choices=("identity", "ar1"),
        source="paper",
    )
    signal: float = setting(0, "on a random square", source="paper")
    anomaly_size: int = setting(0, "side of that square in pixels; 0: a third of the image's, as in the paper", low=0)
    threshold: float = setting(0.8, "of the score", above=0, source="paper")
    filter_size: int = setting(3, "side of the mean filter, odd", low=1, source="paper")
    noise: NoiseFamily = setting("normal", "family of the noise", choices=noise.FAMILIES, source="paper")
    distance: float = setting(0, "1-Wasserstein distance of the noise from N(0, 1)", low=0, source="paper")
    variance_images: int = setting(
        0, "independent normal images from which the variance is estimated; 0: it is known", low=0
    )
    activation: str = setting(
        "relu", "silu is made piecewise linear after training", choices=("relu", "silu"), source="paper"
    )
    knots: int = setting(
        8, "of the piecewise-linear replacement; 0: silu is left smooth, for methods that only run the detector", low=0
    )
    replica: int = setting(0, "number of an independently trained network", low=0, source="paper")

    def check(self) -> None:
        if self.size % POOLINGS:
            raise ConfigurationError(f"size must be a multiple of {POOLINGS}, not {self.size}")
        if self.filter_size % 2 == 0:
            raise ConfigurationError(f"filter_size must be odd, not {self.filter_size}")
        if self.anomaly_size > self.size:
            raise ConfigurationError(f"anomaly_size must not exceed the {self.size} pixels of the image")
        if self.knots in (1, 2):
            raise ConfigurationError(f"knots must be at least 3, or 0 for none, not {self.knots}")
        if self.distance != 0:
            if self.covariance != "identity":
                raise ConfigurationError("noise that is not normal has no correlation: set covariance to identity")
            noise.check_distance(self.noise, float(self.distance))

    @property
    def network(self) -> str:
        """Name of the trained network that the setting needs."""
        return "_".join(f"{key}={getattr(self, key)}" for key in ("size", "activation", "replica"))

    def inputs(self, experiment: str) -> dict[str, str]:
        return {"model": f"models/{self.network}"}

    def load(self, files: Mapping[str, Path]) -> dict[str, Any]:
        check_folder(files["model"])
        return {"model": files["model"]}

    def draw(self, streams: Sequence[Streams], *, model: str | Path) -> Iterator[Block]:
        """Problems of synthetic images, one at a time; ``model`` is the folder of the trained network."""
        # Networks need torch, which takes seconds to import: not for checking a configuration.
        from sigad.localization.detector import Detector
        from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
        from sigad.study.localization_problems import (
            LocalizationProblems,
            Trial,
            draw_images,
            load_unet,
            normal_images,
        )

        unet, shape = load_unet(model, self.knots), (1, self.size, self.size)
        for stream in streams:
            images = draw_images(self, stream.data())
            reconstruct = Reconstruction(unet, draw_noises(stream.selection(), shape))
            detector = Detector(reconstruct, threshold=self.threshold, filter_size=self.filter_size)
            further = functools.partial(normal_images, self)
            yield [stream], LocalizationProblems((Trial(*images, detector, detector.detect(images[0]), further),))

    def pilots(self, streams: Sequence[Streams], *, model: str | Path) -> Iterator[Block]:
        """Images without a signal, which are all that one has before a test, and drawn as those of the trials."""
        return replace(self, signal=0).draw(streams, model=model)

    def cost(self) -> Cost:
        # Measured at 8, 16, 32 and 64 pixels: passes of the U-Net grow with the pixels, a search with their pieces too.
        scale = self.size / 8
        # More pieces, by the same measurements: along correlated noise, and of the replacement of a smooth activation.
        pieces = (2.3 if self.covariance == "ar1" else 1.0) * (3.4 if self.activation == "silu" else 1.0)
        return Cost(
            draw=0.02 + 0.01 * scale**1.5,
            evaluation=0.7e-3 + 0.5e-3 * scale**2,
            piece=0.03 + 0.05 * scale**2,
            search=pieces * 0.3 * scale**3,
            memory=1500 if self.size < 32 else 4000,
        )
