"""Trials of anomaly localization by a diffusion model: what every kind of experiment on it shares."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sigad.data import noise
from sigad.inference.covariance import AutoregressiveCovariance, Covariance
from sigad.inference.exact import exact
from sigad.inference.result import TOLERANCE, Decision, Tolerance
from sigad.inference.truncated import Null, truncated_pvalue
from sigad.line import piecewise
from sigad.localization.coarse import PIXELS, CoarseMap, parse_resolution
from sigad.localization.contrast import Contrast, ReferenceScale, contrast
from sigad.localization.detector import Detector, Localization
from sigad.localization.hypothesis import MaskHypothesis
from sigad.localization.permutation import permutation_pvalue
from sigad.localization.thinning import thinned_test
from sigad.models.diffusion.unet import UNet
from sigad.models.saved import restore
from sigad.seeds import Streams
from sigad.study.problems import PValues

if TYPE_CHECKING:
    from sigad.study.kinds.localization_synthetic import LocalizationSynthetic

CORRELATION = 0.5
MEMORY_BUDGET = 2**29


@dataclass(frozen=True)
class Trial:
    """One trial: test image (C, H, W), reference of that shape or several of them, the signal of the test image (or
    where its anomaly is annotated), and what the detector made of it; ``draw_normals`` gives further normal images
    (m, C, H, W), ``coarse`` says what is tested."""

    x: NDArray[np.float64]
    x_ref: NDArray[np.float64]
    signal: NDArray[np.float64]
    covariance: Covariance | ReferenceScale
    detector: Detector
    found: Localization
    draw_normals: Callable[[np.random.Generator, int], NDArray[np.float64]]
    coarse: CoarseMap = PIXELS

    @property
    def tested(self) -> NDArray[np.bool_]:
        """The pixels that are tested, (H, W)."""
        pixels, within = self.coarse.tested(self.found.mask[None])[0], self.detector.within
        return pixels if within is None else pixels & within

    @property
    def selected(self) -> bool:
        """Whether any pixel was marked."""
        return bool(self.tested.any())

    @property
    def null_true(self) -> bool:
        """Whether the mean signal over the tested pixels is that of the reference, 0."""
        return not self.signal[:, self.tested].sum()

    @property
    def model(self) -> Covariance:
        """The covariance, with the scale of its model where the test takes that of the references."""
        return self.covariance.shape if isinstance(self.covariance, ReferenceScale) else self.covariance

    @property
    def line(self) -> Contrast:
        """The tested statistic."""
        return contrast(self.tested, self.x, self.x_ref, self.covariance)

    @property
    def hypothesis(self) -> MaskHypothesis:
        """What is tested, for the engines."""
        return MaskHypothesis(self.detector, self.x, self.found.mask, self.line, MEMORY_BUDGET, self.coarse)


@dataclass(frozen=True)
class LocalizationProblems:
    """B problems."""

    trials: tuple[Trial, ...]

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, which: NDArray) -> "LocalizationProblems":
        chosen = np.arange(len(self))[which]
        return LocalizationProblems(tuple(self.trials[i] for i in chosen))

    @property
    def null(self) -> Null:
        """Law of the statistics without selection; of an estimated scale it has one parameter for each of them."""
        laws = [trial.line.null if trial.selected else "normal" for trial in self.trials]
        estimated = [law for law in laws if not isinstance(law, str) and law[0] == "signed-beta"]
        if not estimated:
            return "normal"
        assert len(estimated) == len(laws), "asked of hypotheses that were all selected, under one sort of covariance"
        (b,) = {law[1] for law in estimated}
        return "signed-beta", b, np.array([law[2] for law in estimated])

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Whether a region was marked, (B,)."""
        return np.array([trial.selected for trial in self.trials])

    @property
    def null_true(self) -> NDArray[np.bool_]:
        """Whether the tested hypothesis is true, (B,)."""
        return np.array([trial.null_true for trial in self.trials])

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Whether the test image is a normal one, (B,)."""
        return np.array([not trial.signal.any() for trial in self.trials])

    @property
    def statistic(self) -> NDArray[np.float64]:
        """Observed test statistics, (B,); NaN where nothing was marked."""
        return np.array([trial.line.statistic if trial.selected else np.nan for trial in self.trials])

    @property
    def score(self) -> NDArray[np.float64]:
        """Sizes of the test statistics, (B,); NaN where nothing was marked."""
        return np.abs(self.statistic)

    @property
    def log_hypotheses(self) -> NDArray[np.float64]:
        """Log of the number of regions that could have been marked, 2^n for n pixels, (B,)."""
        return np.array([trial.found.mask.size * np.log(2) for trial in self.trials])

    def at_resolution(self, size: int) -> "LocalizationProblems":
        """The same detections with hypotheses about the blocks of size x size pixels that hold a marked one."""
        return LocalizationProblems(tuple(replace(trial, coarse=parse_resolution(size)) for trial in self.trials))

    def hypotheses(self) -> list[MaskHypothesis]:
        """What is tested, for engines that only run the detector: in single precision, which is several times faster.
        Where that marks other pixels in the image itself, an engine raises NumericalError."""
        return [replace(trial.hypothesis, detector=trial.detector.in_single_precision()) for trial in self.trials]

    def selective(self, *, tolerance: Tolerance | Decision = TOLERANCE) -> PValues:
        """The selective test (Katsuoka et al. 2026)."""
        return PValues.of([exact(trial.hypothesis, tolerance=tolerance) for trial in self.trials])

    def over_conditioned(self) -> PValues:
        """The selective test without parametric programming: only the linear piece that holds the observation."""
        hypotheses = [trial.hypothesis for trial in self.trials]
        return PValues.exact(
            np.array([float(truncated_pvalue(h.statistic, h.piece_region(), null=h.null)) for h in hypotheses]), 1
        )

    def normals(self, streams: Sequence[Streams], count: int) -> Iterator["LocalizationProblems"]:
        """The problems of further normal images with the same detector and reference image."""
        for trial, stream in zip(self.trials, streams, strict=True):
            images = trial.draw_normals(stream.normals(), count)
            found = zip(images, trial.detector.detect_all(images), strict=True)
            silence = np.zeros_like(trial.signal)
            yield LocalizationProblems(tuple(replace(trial, x=x, signal=silence, found=marked) for x, marked in found))

    def thinned(self, streams: Sequence[Streams], tau: float) -> PValues:
        """The test by Gaussian thinning."""
        return PValues.of(
            [
                thinned_test(
                    trial.detector.with_threshold(trial.detector.threshold * float(np.sqrt(1 + tau**2))),
                    trial.x,
                    trial.x_ref,
                    trial.model,
                    tau=tau,
                    rng=stream.method(),
                )
                for trial, stream in zip(self.trials, streams, strict=True)
            ]
        )

    def permuted(self, streams: Sequence[Streams], permutations: int) -> PValues:
        """The permutation test; it marks regions in single precision."""
        result = []
        for trial, stream in zip(self.trials, streams, strict=True):
            single = trial.detector.in_single_precision()
            statistic = lambda mask, x, x_ref, trial=trial: contrast(mask, x, x_ref, trial.covariance).statistic  # noqa: E731
            result.append(
                permutation_pvalue(
                    single.masks,
                    trial.x,
                    trial.x_ref,
                    statistic,
                    trial.line.statistic,
                    stream.method(),
                    permutations=permutations,
                )
            )
        return PValues.exact(np.array(result))


def normal_images(setting: "LocalizationSynthetic", rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Normal images (count, 1, size, size) of a setting."""
    values = noise.sample(rng, setting.noise, float(setting.distance), (count, setting.size**2))
    if setting.covariance == "ar1":
        values = AutoregressiveCovariance(CORRELATION).color(values)
    return values.reshape(count, 1, setting.size, setting.size)


def load_unet(folder: str | Path, knots: int) -> UNet:
    """A trained network in double precision; its activations made piecewise linear, with ``knots`` knots, if they are
    smooth and there are any knots."""
    unet = restore(UNet, folder).double()
    if unet.activation != "silu" or not knots:
        return unet
    replaced = piecewise(unet, activations=["SiLU"], knots=knots)
    assert isinstance(replaced, UNet), "activations are replaced within a copy"
    return replaced


def draw_images(
    setting: "LocalizationSynthetic", rng: np.random.Generator
) -> tuple[NDArray, NDArray, NDArray, Covariance]:
    """Test image, reference image, and signal of the test image (1, size, size); and the covariance that is assumed."""
    size, images = setting.size, setting.variance_images
    correlated = AutoregressiveCovariance(CORRELATION)
    values = noise.sample(rng, setting.noise, float(setting.distance), (2 + images, size * size))
    if setting.covariance == "ar1":
        values = correlated.color(values)
    x, x_ref = values[:2].reshape(2, 1, size, size)
    signal, side = np.zeros((1, size, size)), setting.anomaly_size or size // 3
    top, left = rng.integers(0, size - side + 1, 2)
    signal[0, top : top + side, left : left + side] = setting.signal
    # From normal images that are used for nothing else.
    variance = float(values[2:].var(ddof=1)) if images else 1.0
    if setting.covariance == "ar1":
        return x + signal, x_ref, signal, AutoregressiveCovariance(CORRELATION, variance)
    return x + signal, x_ref, signal, variance
