"""The kind ``localization_synthetic``: anomaly localization by a diffusion model on synthetic images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sigad.data import noise
from sigad.errors import ConfigurationError
from sigad.study.seeds import Streams

# Networks need torch and diffusers, which take seconds to import: not for checking a configuration.
if TYPE_CHECKING:
    from sigad.study.localization_problems import LocalizationProblems

COVARIANCES = ("identity", "ar1")
ACTIVATIONS = ("relu", "silu")
POOLINGS = 8
"""The network halves an image three times."""


def check(setting: dict) -> None:
    """Raise ConfigurationError for a setting that cannot be computed."""
    if setting["size"] < POOLINGS or setting["size"] % POOLINGS:
        raise ConfigurationError(f"size must be a multiple of {POOLINGS}, not {setting['size']}")
    if setting["covariance"] not in COVARIANCES:
        raise ConfigurationError(f"covariance must be one of {', '.join(COVARIANCES)}, not {setting['covariance']!r}")
    if setting["activation"] not in ACTIVATIONS:
        raise ConfigurationError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {setting['activation']!r}")
    if setting["filter_size"] % 2 == 0:
        raise ConfigurationError(f"filter_size must be odd, not {setting['filter_size']}")
    if setting["distance"] != 0:
        if setting["covariance"] != "identity":
            raise ConfigurationError("noise that is not normal has no correlation: set covariance to identity")
        noise.check_distance(setting["noise"], float(setting["distance"]))


def model_name(setting: dict) -> str:
    """Name of the trained network that a setting needs."""
    return "_".join(f"{key}={setting[key]}" for key in ("size", "activation", "replica"))


def draw(setting: dict, streams: Sequence[Streams], *, model: str | Path) -> Iterator["LocalizationProblems"]:
    """Problems of synthetic images, one at a time.

    An image is noise, independent or with the covariance 0.5^|i - j| in row-major order, and a signal on a random
    square whose side is a third of the image's. The noises of the reconstruction are the detector's own randomness.

    Parameters
    ----------
    setting : ``size``, ``covariance``, ``signal``, ``threshold``, ``filter_size``, ``noise``, ``distance``,
        ``variance_images``, ``knots``, ``permutations``; see docs/localization.md.
    streams : one per trial.
    model : folder of the trained network.
    """
    from sigad.localization.detector import Detector
    from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
    from sigad.study.localization_problems import LocalizationProblems, Trial, draw_images, load_unet

    unet, shape = load_unet(model, setting["knots"]), (1, setting["size"], setting["size"])
    for stream in streams:
        images = draw_images(setting, stream.data())
        reconstruct = Reconstruction(unet, draw_noises(stream.selection(), shape))
        detector = Detector(reconstruct, threshold=setting["threshold"], filter_size=setting["filter_size"])
        trial = Trial(*images, detector, detector.detect(images[0]))
        yield LocalizationProblems((trial,), setting["permutations"])
