"""The kind ``localization_images``: anomaly localization on whole real images, split by patient."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sigad.errors import ConfigurationError, MissingDataError, unknown
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost, Kind
from sigad.study.settings import setting

NOISE = ("best", "isotropic", "diagonal", "autoregressive", "shrunk", "components")
TRAINED = ("autoencoder", "diffusion")


@dataclass(frozen=True)
class LocalizationImages(Kind):
    """Whole images of a stack. A trial draws a patient of those for testing, and one of its images; what is fixed
    before (threshold, noise model, references) comes from other patients, and so do the normal images that calibrate.
    Trials that draw one patient depend on one another, more so the fewer patients there are."""

    offers = frozenset({"regions", "evaluations", "normals", "pixels", "thinning"})

    dataset: str = setting("gravel", "name of the stack in `stacks`, config/datasets.yaml")
    size: int = setting(32, "side of the prepared images in pixels, a multiple of 8", low=8)
    instance: str = setting(
        "normal", "under test: a normal image, or one with an annotated anomaly", choices=("normal", "anomaly")
    )
    detector: str = setting(
        "components",
        "reconstruction by principal components, an autoencoder, or a diffusion model",
        choices=("components", *TRAINED),
        source="diffusion from the paper",
    )
    components: int = setting(0, "principal components; with none the reconstruction is the mean normal image", low=0)
    flagged: float = setting(0.3, "share of the normal images for noise in which something is marked", above=0, below=1)
    resolution: int = setting(8, "side of the blocks that are tested; 1: the marked pixels (paper)", low=1)
    filter_size: int = setting(3, "side of the mean filter, odd", low=1, source="paper")
    noise: str = setting("best", "model of the noise; best: the largest held-out likelihood", choices=NOISE)
    scale: Literal["references", "held-out"] = setting(
        "references",
        "of the noise: that of the references over the tested pixels (exact), or of the model on held-out patients",
        choices=("references", "held-out"),
    )

    def check(self) -> None:
        if self.size % 8:
            raise ConfigurationError(f"size must be a multiple of 8, not {self.size}")
        if self.filter_size % 2 == 0:
            raise ConfigurationError(f"filter_size must be odd, not {self.filter_size}")

    def require(self, config: Mapping[str, Any]) -> None:
        from sigad.data.stack_sources import availability

        known = config.get("stacks") or {}
        if self.dataset not in known:
            raise ConfigurationError(f"dataset: {unknown('stack of images', self.dataset, known)}")
        available, reason = availability(self.dataset, known[self.dataset], config["data"], config.get("images") or {})
        if not available:
            raise MissingDataError(f"the images {self.dataset!r} cannot be had: {reason}")

    @property
    def stack(self) -> str:
        """Name of the prepared stack."""
        return f"{self.dataset}_size={self.size}"

    def inputs(self, experiment: str) -> dict[str, str]:
        files = {"stack": f"stacks/{self.stack}.npz"}
        if self.detector in TRAINED:
            files["network"] = f"detectors/{self.stack}_{self.detector}"
        return files

    def load(self, files: Mapping[str, Path]) -> dict[str, Any]:
        from sigad.data.sealed import check_folder
        from sigad.data.stack import ImageStack

        stack = ImageStack.load(files["stack"])
        if "network" not in files:
            return {"stack": stack, "network": None}
        from sigad.models.autoencoder import Autoencoder
        from sigad.models.diffusion.unet import UNet
        from sigad.models.saved import restore

        check_folder(files["network"])
        network = restore(Autoencoder if self.detector == "autoencoder" else UNet, files["network"])
        return {"stack": stack, "network": network.double()}

    def draw(self, streams: Sequence[Streams], *, stack: Any, network: Any) -> Iterator[Block]:
        """Problems of images of the stack, one at a time; ``network`` is the trained one, if the detector has one."""
        candidates = stack.which("test", anomalous=self.instance == "anomaly")
        if not len(candidates):
            raise MissingDataError(f"{stack.name} has no {self.instance} image for testing: give more images")
        setup = self.set_up(stack, network)
        yield from self._draw(streams, stack, candidates, setup, setup.references)

    def pilots(self, streams: Sequence[Streams], *, stack: Any, network: Any) -> Iterator[Block]:
        """Images for calibration, compared with those for noise: neither is under test or a reference in a trial."""
        candidates, setup = stack.which("calibration"), self.set_up(stack, network)
        yield from self._draw(streams, stack, candidates, setup, stack.of("noise"))

    def _draw(
        self, streams: Sequence[Streams], stack: Any, candidates: NDArray, setup: Any, references: NDArray
    ) -> Iterator[Block]:
        from sigad.study.localization_problems import LocalizationProblems, Trial

        patients, calibration = np.unique(stack.groups[candidates]), stack.of("calibration")

        def further(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
            return rng.permutation(calibration)[:count]

        for stream in streams:
            rng = stream.data()
            chosen = int(rng.choice(candidates[stack.groups[candidates] == rng.choice(patients)]))
            x, signal = stack.images[chosen].astype(np.float64), stack.masks[chosen][None].astype(np.float64)
            found = setup.detector.detect(x)
            trial = Trial(x, references, signal, setup.covariance, setup.detector, found, further, setup.coarse)
            yield [stream], LocalizationProblems((trial,))

    def set_up(self, stack: Any, network: Any) -> Any:
        """The :class:`~sigad.localization.setup.Setup` of the detector, from what :meth:`load` returns."""
        import torch

        from sigad.data.image_noise import KINDS
        from sigad.localization.setup import set_up
        from sigad.models.components import ComponentReconstruction
        from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises

        # The noises of a diffusion model, drawn once for all images, are a part of the detector.
        fixed = Streams(0, "localization_images", self.stack, 0).selection()
        if self.detector == "components":
            network = ComponentReconstruction(torch.from_numpy(stack.of("train")), self.components)
        elif self.detector == "diffusion":
            network = Reconstruction(network, draw_noises(fixed, stack.images.shape[1:])).eval()
        return set_up(
            stack,
            network,
            flagged=self.flagged,
            resolution=self.resolution,
            filter_size=self.filter_size,
            kinds=KINDS if self.noise == "best" else (self.noise,),
            scale=self.scale,
        )

    def cost(self) -> Cost:
        # Measured on TCGA-LGG with trained networks: components and autoencoder at 32 and 64 pixels, diffusion at 32;
        # components on MVTec at 128, in colour: 10 s and 1.3 GB.
        # A pass takes longer in proportion to the pixels, and the line has that many more pieces.
        scale = (self.size / 32) ** 2
        evaluation = {"components": 0.1e-3, "autoencoder": 2e-3, "diffusion": 20e-3}[self.detector] * scale
        piece = {"components": 0.01, "autoencoder": 0.07, "diffusion": 0.55}[self.detector] * scale
        search = {"components": 0.06 * scale, "autoencoder": 2.5 * scale, "diffusion": 45 * scale}[
            self.detector
        ] * scale
        memory = 500 if self.detector == "components" else 800
        return Cost(
            draw=0.01 + 2 * evaluation,
            evaluation=evaluation,
            piece=piece,
            search=search,
            memory=memory if self.size <= 64 else 4 * memory,
            selected=1.0 if self.instance == "anomaly" else self.flagged,
        )
