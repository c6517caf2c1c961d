"""The kind ``knn_images``: k-nearest-neighbour anomaly detection of image patches in the features of a network.

The test is about pixels, as in the paper, and the network is a part of the detector. Where its features are the data
themselves is the kind ``knn_embeddings``.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sigad.data.images import DEFECTIVE, ImageSet, split
from sigad.data.patch_noise import NOISE_KINDS, Noise, NoiseKind, estimate
from sigad.errors import ConfigurationError, InvalidInputError
from sigad.inference.region import Region
from sigad.inference.result import TOLERANCE, Decision, Tolerance
from sigad.inference.truncated import truncated_pvalue
from sigad.knn.against import AgainstNeighbourhood
from sigad.knn.detection import Detections, Metric, detect_features, scores
from sigad.seeds import Streams
from sigad.study.kinds import Cost
from sigad.study.knn_problems import DetectedProblems, KnnKind
from sigad.study.patches import require_patches
from sigad.study.problems import PValues
from sigad.study.settings import setting

# A score in single precision that is this far below the threshold is below it in double precision.
_MARGIN = 1e-3

BLOCK = (6, 16)
"""Rows and columns of patches that stand for an image, where a set is cut from one picture."""

Further = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Gives normal patches (m, C, H, W) of one position that serve for nothing else, as many as asked for or all."""


@dataclass(frozen=True)
class KnnImageProblems(DetectedProblems):
    """B patches with what was detected.

    ``shape`` (C, H, W) of a patch; ``features`` the network (:class:`~sigad.knn.network.NetworkFeatures`); ``places``
    (B, 3) image, row and column of the patches under test; ``noises`` the noise model of each; ``further`` gives normal
    patches (m, C, H, W) that serve for nothing else.
    """

    shape: tuple[int, int, int]
    features: Any
    places: NDArray[np.int64]
    noises: tuple[Noise, ...]
    further: tuple[Further, ...]

    @functools.cached_property
    def statistic(self) -> NDArray[np.float64]:
        """Observed test statistics, (B,)."""
        pairs = zip(self.noises, self.test.difference(self.detections), strict=True)
        return np.array([noise.statistic(difference, self.test.factor) for noise, difference in pairs])

    def __getitem__(self, which: NDArray) -> "KnnImageProblems":
        some = np.arange(len(self))[which]
        return replace(
            self,
            **self._chosen(which),
            places=self.places[which],
            noises=tuple(self.noises[i] for i in some),
            further=tuple(self.further[i] for i in some),
        )

    def normals(self, streams: Sequence[Streams], count: int) -> Iterator["KnnImageProblems"]:
        """The problems of further normal patches at the same position, with the same training patches."""
        for b, stream in enumerate(streams):
            x, found, noise = self.further[b](stream.normals(), count), self.detections, self.noises[b]
            each = functools.partial(_repeated, len(x))
            detections = detect_features(
                x.reshape(len(x), -1),
                each(found.x_train[b]),
                self.features(x),
                each(found.f_train[b]),
                k=found.candidates,
                threshold=float(found.threshold[b]),
                metric=found.metric,
            )
            yield KnnImageProblems(
                detections=detections,
                null_true=np.ones(len(x), bool),
                normal=np.ones(len(x), bool),
                calibration_scores=each(self.calibration_scores[b]),
                shape=self.shape,
                features=self.features,
                places=each(self.places[b]),
                noises=(noise,) * len(x),
                further=(self.further[b],) * len(x),
                test=self.test,
            )

    def hypotheses(self) -> list:
        """What is tested, for engines that only run the detector: in single precision, which is several times faster.
        Where that selects another neighbour in the patches themselves, an engine raises NumericalError."""
        import torch

        fast = copy.copy(self.features)
        fast.dtype = torch.float32
        return [replace(hypothesis, features=fast) for hypothesis in self._hypotheses()]

    def _hypotheses(self, *, condition_on_k: bool = True) -> list:
        """The hypothesis of each problem (of :mod:`sigad.knn.network`)."""
        from sigad.knn.network import NeighbourhoodHypothesis, NeighbourHypothesis

        if isinstance(self.test, AgainstNeighbourhood):
            of = functools.partial(NeighbourhoodHypothesis.of, m=self.test.m)
        else:
            of = functools.partial(NeighbourHypothesis.of, condition_on_k=condition_on_k)
        return [
            of(self.features, self.detections, b, statistic=float(t), shape=self.shape)
            for b, t in enumerate(self.statistic)
        ]

    def selective(self, *, condition_on_k: bool = True, tolerance: Tolerance | Decision = TOLERANCE) -> PValues:
        """The selective test (Niihori et al. 2025, Theorem 4.1), or that against the neighbourhood: the network and the
        neighbours' events."""
        from sigad.inference.exact import exact

        hypotheses = self._hypotheses(condition_on_k=condition_on_k)
        return PValues.of([exact(hypothesis, tolerance=tolerance) for hypothesis in hypotheses])

    def over_conditioned(self) -> PValues:
        """w/o-pp: the network's linear piece and the order of the nearest instances, one interval."""
        return self._truncated([hypothesis.order_region() for hypothesis in self._hypotheses()])

    def piece_only(self) -> PValues:
        """OpA1: the network's linear piece, and no event of the neighbours."""
        return self._truncated([hypothesis.piece_region() for hypothesis in self._hypotheses()])

    def neighbours_only(self) -> PValues:
        """OpA2: the events of the neighbours, for the network linearised at the observation."""
        return self._truncated([hypothesis.linearised_region() for hypothesis in self._hypotheses()])

    def _truncated(self, regions: list[Region]) -> PValues:
        p = [truncated_pvalue(t, r, null=self.null) for t, r in zip(self.statistic, regions, strict=True)]
        return PValues.exact(np.array(p, np.float64).reshape(-1), 1)


ImageBlock = tuple[Sequence[Streams], KnnImageProblems]


@dataclass(frozen=True)
class KnnImages(KnnKind):
    """Patches of images at one position (space: pixels); every trial splits the normal images anew and draws a
    position."""

    offers = frozenset(
        {"regions", "evaluations", "neighbours", "neighbourhoods", "network_pieces", "scores_of_normals", "normals"}
    )

    dataset: str = setting("transistor", "name of the image set in `images`, config/datasets.yaml", source="paper")
    instance: str = setting(
        "normal",
        "under test: normal, a patch of a held-out normal image; anomaly, a defective patch; gaussian, a patch drawn, "
        "as all others, from the estimated noise; image, every patch of an anomalous image, as hypotheses of one trial",
        choices=("normal", "anomaly", "gaussian", "image"),
        source="paper; gaussian and image chosen",
    )
    covariance: NoiseKind = setting("shrunk", "model of the noise", choices=NOISE_KINDS)
    features: str = setting("resnet18", "name of the network in `features`", source="paper")

    def check(self) -> None:
        super().check()
        if self.candidates[-1] > self.n:
            raise ConfigurationError(f"k = {self.k} needs at least as many training patches, but n = {self.n}")

    def require(self, config: Mapping[str, Any]) -> None:
        require_patches(self.dataset, self.features, config)

    def inputs(self, experiment: str) -> dict[str, str]:
        stem = f"images/{self.dataset}"
        return {"images": f"{stem}.npy", "facts": f"{stem}.json", "features": f"features/{self.features}.pt"}

    def load(self, files: Mapping[str, Path]) -> dict[str, Any]:
        from sigad.models.features import restore_features

        images = ImageSet.load(files["images"], files["facts"])
        return {"images": images, "features": restore_features(files["features"])}

    def draw(self, streams: Sequence[Streams], *, images: ImageSet, features: Any) -> Iterator[ImageBlock]:
        """Problems of image patches; ``features`` is a torch module or :class:`sigad.knn.network.NetworkFeatures`."""
        from sigad.knn.network import NetworkFeatures

        network = features if isinstance(features, NetworkFeatures) else NetworkFeatures(features)
        for stream in streams:
            if self.instance == "image":
                yield from self._image(stream, images, network)
                continue
            trial = draw_trial(images, stream.data(), n=self.n, instance=self.instance, covariance=self.covariance)
            yield [stream], self._problems(network, trial, np.array([self.instance != "anomaly"]))

    def pilots(self, streams: Sequence[Streams], *, images: ImageSet, features: Any) -> Iterator[ImageBlock]:
        """Patches of noise, correlated from pixel to pixel: any image of the set is under test in some trial."""
        noise = noise_images(streams[0].data(), 3 * self.n + 100, images)
        return replace(self, instance="normal").draw(streams, images=noise, features=features)

    def cost(self) -> Cost:
        # Features of the training and estimation patches rule a draw, passes of the two moving patches a search. The
        # small CNN sees 16 x 16 pixels in gray; what else there is, is taken for a ResNet-18 on 30 x 30 in colour.
        small = self.features == "small_cnn"
        draw, search = (0.035, 0.15) if small else (0.4, 1.2)
        selected = 1.0 if self.instance in ("anomaly", "image") else 1 - self.quantile
        patches = 96 if self.instance == "image" else 1
        return Cost(
            draw=draw * patches,
            evaluation=draw / 100,
            piece=selected * draw * patches,
            search=selected * search * patches,
            memory=1500 if small else 4000,
            selected=selected,
            neighbourhood=5.0 if small else 3.0,
        )

    def _problems(self, network: Any, trial: "Trial", null_true: NDArray[np.bool_]) -> KnnImageProblems:
        """The problem of one patch."""
        if len(trial.x_train) < self.candidates[-1]:
            raise InvalidInputError(
                f"the image set {self.dataset!r} allows {len(trial.x_train)} training patches, fewer than "
                f"k = {self.candidates[-1]}"
            )
        held_out = normal_scores(
            network.approximate(trial.estimation), self.candidates, n=len(trial.x_train), metric=self.metric
        )
        threshold = float(np.quantile(held_out, self.quantile, method="higher"))
        detections = detect_patch(network, trial.x_test, trial.x_train, self.candidates, threshold, self.metric)
        return KnnImageProblems(
            detections=detections,
            # What generated a real patch is unknown: one of a normal image counts as a true null hypothesis.
            null_true=null_true,
            normal=null_true,
            calibration_scores=held_out[None],
            shape=trial.x_test.shape,
            features=network,
            places=np.array([(trial.image, *trial.position)]),
            noises=(trial.noise,),
            further=(trial.further,),
        )

    def _image(self, stream: Streams, images: ImageSet, network: Any) -> Iterator[ImageBlock]:
        """All patches of an anomalous image, as hypotheses of one trial."""
        places, train, estimation = draw_image(images, stream.data(), self.n)
        noise: dict[tuple[int, int], Noise] = {}
        for i, (image, *at) in enumerate(places.reshape(-1, 3).tolist()):
            position = (at[0], at[1])
            x_train, held_out = (images.patches(part, position) for part in (train, estimation))
            if position not in noise:  # all patches of a set cut from one picture share one position
                noise = {position: estimate(held_out.reshape(len(held_out), -1), self.covariance)}
            x_test = images.patches([image], position)[0]
            trial = Trial(x_test, x_train, held_out, noise[position], image, position, _no_normals)
            normal = np.array([images.defect[image][position] == 0])
            yield [stream.of(i)], self._problems(network, trial, normal)


@dataclass(frozen=True)
class Trial:
    """Patches of one position: (C, H, W) under test, (n, C, H, W) for training, (m, C, H, W) for estimation; the noise
    estimated on the last; the number of the tested image with its position (row, column); and further normal ones."""

    x_test: NDArray[np.float64]
    x_train: NDArray[np.float64]
    estimation: NDArray[np.float64]
    noise: Noise
    image: int
    position: tuple[int, int]
    further: Further


def draw_trial(images: ImageSet, rng: np.random.Generator, *, n: int, instance: str, covariance: NoiseKind) -> Trial:
    """Draw the patches of one trial; raises InvalidInputError if there are no anomalies although one is asked for."""
    parts = split(images, rng, n)
    if instance == "anomaly":
        anomalies = images.anomalies()
        if not len(anomalies):
            raise InvalidInputError(f"the image set {images.name!r} has no defective patches")
        image, row, column = map(int, anomalies[rng.integers(len(anomalies))])
    else:
        image = int(rng.choice(parts.testing))
        row, column = (int(rng.integers(size)) for size in images.grid)
    at = lambda which: images.patches(which, (row, column))  # noqa: E731
    x_test, x_train, estimation = at([image])[0], at(parts.pool), at(parts.estimation)
    noise = estimate(estimation.reshape(len(estimation), -1), covariance)
    others = parts.testing[parts.testing != image]
    further = lambda rng, m: at(rng.permutation(others)[:m])  # noqa: E731
    if instance == "gaussian":
        fresh = lambda m, rng=rng: noise.sample(rng, m).reshape(m, *x_test.shape)  # noqa: E731
        x_test, x_train, estimation = fresh(1)[0], fresh(len(x_train)), fresh(len(estimation))
        further = lambda rng, m: fresh(m, rng)  # noqa: E731
    return Trial(x_test, x_train, estimation, noise, image, (row, column), further)


def noise_images(rng: np.random.Generator, count: int, like: ImageSet) -> ImageSet:
    """So many images of a single patch, as large as those of a set: smooth normal noise around medium gray."""
    shape = (count, like.images.shape[1], like.patch, like.patch)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), sigma=(0, 0, 1, 1))
    pixels = np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    names = tuple(f"noise {i}" for i in range(count))
    return ImageSet("noise", pixels, np.ones(count, bool), np.zeros((count, 1, 1), np.float32), like.patch, names)


def _repeated(count: int, values: NDArray) -> NDArray:
    """The same values so many times, (count, ...), not copied."""
    return np.broadcast_to(values, (count, *np.shape(values)))


def _no_normals(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    raise ConfigurationError(
        "all normal images train or estimate where every patch of an image is tested: conformal methods need "
        "the instance normal, anomaly or gaussian"
    )


def draw_image(
    images: ImageSet, rng: np.random.Generator, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Draw an anomalous image and the images that serve its test.

    For a set cut from one picture, the image is a block of :data:`BLOCK` patches of it, and those outside of it serve.

    Returns
    -------
    (rows, columns, 3) image, row and column of each patch; numbers of the images for training and for estimation.
    """
    if images.columns is None:
        anomalous = np.flatnonzero((images.defect >= DEFECTIVE).any(axis=(1, 2)))
        if not len(anomalous):
            raise InvalidInputError(f"the image set {images.name!r} has no image with a defective patch")
        image = int(rng.choice(anomalous))
        places = np.array([[(image, r, c) for c in range(images.grid[1])] for r in range(images.grid[0])])
        parts = split(images, rng, n)
        return places, parts.pool, np.concatenate([parts.estimation, parts.testing])
    rows, columns = len(images) // images.columns, images.columns
    height, width = min(BLOCK[0], rows), min(BLOCK[1], columns)
    top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
    numbers = (np.arange(top, top + height)[:, None] * columns) + np.arange(left, left + width)
    outside = rng.permutation(np.setdiff1d(np.flatnonzero(images.normal), numbers))
    size = min(n, len(outside) // 2)
    return np.stack([numbers, 0 * numbers, 0 * numbers], axis=-1), outside[:size], outside[size:]


def normal_scores(
    features: NDArray, candidates: Sequence[int], *, n: int, metric: Metric = "l2"
) -> NDArray[np.float64]:
    """The scores (m,) that normal instances (m, D) obtain against n others of them (all, if there are fewer).

    As many as there are training instances: the score of a neighbour of given rank falls with their number.
    """
    from scipy.spatial.distance import cdist  # slow to import

    distances = cdist(features, features, {"l2": "euclidean", "l1": "cityblock", "linf": "chebyshev"}[metric])
    m = len(features)
    # In random order already: those that follow, in a circle.
    others = np.take_along_axis(distances, (np.arange(m)[:, None] + np.arange(1, min(n, m - 1) + 1)) % m, axis=1)
    if others.shape[1] < candidates[-1]:
        raise InvalidInputError(f"{len(features)} instances are too few for a threshold with k = {candidates[-1]}")
    return scores(others, candidates, features.shape[1]).max(axis=-1)


def detect_patch(
    network: Any, x_test: NDArray, x_train: NDArray, candidates: Sequence[int], threshold: float, metric: Metric
) -> Detections:
    """Run the detector on one patch: in single precision, and where that does not reject it clearly in double."""

    def run(features) -> Detections:
        f = features(np.concatenate([x_test[None], x_train]))
        flat = x_train.reshape(1, len(x_train), -1)
        return detect_features(
            x_test.reshape(1, -1), flat, f[:1], f[None, 1:], k=candidates, threshold=threshold, metric=metric
        )

    found = run(network.approximate)
    return run(network) if found.score[0] > threshold - _MARGIN else found
