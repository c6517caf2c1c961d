"""What single images show: examples of detected patches, a map of p-values over an image, and how well the noise model
describes normal patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sigad.data.images import DEFECTIVE, ImageSet, split
from sigad.data.patch_noise import NOISE_KINDS, estimate
from sigad.errors import InvalidInputError, NumericalError
from sigad.inference.region import WHOLE_LINE
from sigad.inference.truncated import truncated_pvalue
from sigad.study.kinds.knn_images import KnnImageProblems, calibrated_threshold, detect_patch, draw, draw_trial
from sigad.study.knn_problems import parse_candidates
from sigad.study.seeds import Streams


def benjamini_hochberg(p_values: NDArray, level: float) -> NDArray[np.bool_]:
    """Which hypotheses the procedure of Benjamini & Hochberg (1995) rejects at a false discovery rate, (m,)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    passed = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / max(len(p), 1))
    rejected = np.zeros(len(p), dtype=bool)
    if len(passed):
        rejected[order[: passed[-1] + 1]] = True
    return rejected


@dataclass(frozen=True)
class Example:
    """A detected patch (C, p, p), its selected neighbour, and its p-values; ``truth`` is "normal" or "anomaly"."""

    truth: str
    patch: NDArray[np.float64]
    neighbour: NDArray[np.float64]
    image: int
    position: tuple[int, int]
    score: float
    naive: float
    selective: float


def examples(
    images: ImageSet, features, setting: dict, seed: int, *, alpha: float, attempts: int = 60
) -> tuple[list[Example], dict[str, int]]:
    """A true negative and a true positive: a detected normal patch that the selective test does not reject, and a
    detected anomaly that it does (Niihori et al. 2025, figures 5 and 15).

    Returns the examples that up to ``attempts`` trials of each sort contain, and how many trials were looked at. An
    example is chosen for its outcome: it shows what happens, not how often.
    """
    found, looked_at = [], {}
    for truth in ("normal", "anomaly"):
        if truth == "anomaly" and not len(images.anomalies()):
            continue
        streams = [Streams(seed, "fig05_examples", f"{images.name}_{truth}", rep) for rep in range(attempts)]
        for stream, problems in zip(
            streams, draw({**setting, "instance": truth}, streams, images=images, features=features), strict=True
        ):
            looked_at[truth] = looked_at.get(truth, 0) + 1
            if not problems.selected[0]:
                continue
            try:
                p = float(problems.selective().p_value[0])
            except NumericalError:
                continue
            if (p <= alpha) == (truth == "anomaly"):
                found.append(_example(truth, problems, images, stream, setting, p))
                break
    return found, looked_at


def _example(
    truth: str, problems: KnnImageProblems, images: ImageSet, stream: Streams, setting: dict, p: float
) -> Example:
    again = draw_trial(
        images, stream.data(), n=setting["n"], instance=truth, covariance=setting["covariance"]
    )  # for the image's number and the position
    found = problems.detections
    return Example(
        truth=truth,
        patch=found.x_test[0].reshape(problems.shape),
        neighbour=found.x_train[0, found.index[0]].reshape(problems.shape),
        image=again.image,
        position=again.position,
        score=float(found.score[0]),
        naive=float(truncated_pvalue(problems.statistic, WHOLE_LINE, null=problems.null)[0]),
        selective=p,
    )


@dataclass(frozen=True)
class PValueMap:
    """The patches of one picture (C, H, W): (rows, columns) arrays of the share of defective pixels, whether the patch
    was detected, naive and selective p-values (NaN where not detected or failed), and whether the false discovery rate
    procedure rejects."""

    picture: NDArray[np.uint8]
    patch: int
    defect: NDArray[np.float64]
    detected: NDArray[np.bool_]
    naive: NDArray[np.float64]
    selective: NDArray[np.float64]
    rejected: NDArray[np.bool_]


def pvalue_map(
    images: ImageSet, features, setting: dict, seed: int, *, level: float, block: tuple[int, int] = (6, 16)
) -> PValueMap:
    """P-values of all detected patches of one anomalous image, and which of them survive the control of the false
    discovery rate among the detected patches (beyond the paper).

    Each p-value is valid given that its patch was detected, so that the procedure runs over the detected patches. For a
    set cut from one picture, the image is a block of (rows, columns) of its patches, and those outside of it train.
    """
    from sigad.inference.exact import exact
    from sigad.knn.network import NeighbourHypothesis, NetworkFeatures

    network = features if isinstance(features, NetworkFeatures) else NetworkFeatures(features)
    rng = Streams(seed, "image_map", images.name, 0).data()
    places, picture, sets = _whole_image(images, rng, setting["n"], block)
    candidates = parse_candidates(setting["k"])
    shape = places.shape[:2]
    defect, naive, selective = (np.full(shape, np.nan) for _ in range(3))
    detected, calibrated = np.zeros(shape, bool), {}
    for at in np.ndindex(*shape):
        image, *position = map(int, places[at])
        position = tuple(position)
        defect[at] = images.defect[image][position]
        if position not in calibrated:  # all patches of a set cut from one picture share one position
            x_train, estimation = (images.patches(part, position) for part in sets)
            noise = estimate(estimation.reshape(len(estimation), -1), setting["covariance"])
            threshold = calibrated_threshold(
                network.approximate(estimation),
                candidates,
                setting["quantile"],
                n=len(x_train),
                metric=setting["metric"],
            )
            calibrated = {position: (x_train, noise, threshold)}
        x_train, noise, threshold = calibrated[position]
        x_test = images.patches([image], position)[0]
        found = detect_patch(network, x_test, x_train, candidates, threshold, setting["metric"])
        if not found.selected[0]:
            continue
        detected[at] = True
        t = float(noise.statistic(found.difference)[0])
        naive[at] = truncated_pvalue(t, WHOLE_LINE, null=("chi", x_test.size))
        try:
            selective[at] = exact(NeighbourHypothesis.of(network, found, 0, t, x_test.shape)).p_value
        except NumericalError:
            continue
    rejected = np.zeros(shape, bool)
    # A detected patch whose search failed is not rejected, and counts.
    rejected[detected] = benjamini_hochberg(np.nan_to_num(selective[detected], nan=1.0), level)
    return PValueMap(picture, images.patch, defect, detected, naive, selective, rejected)


def _whole_image(images: ImageSet, rng: np.random.Generator, n: int, block: tuple[int, int]):
    """(rows, columns, 3) of image, row and column of each patch; the picture; images for training and estimation."""
    if images.columns is None:
        anomalous = np.flatnonzero((images.defect >= DEFECTIVE).any(axis=(1, 2)))
        if not len(anomalous):
            raise InvalidInputError(f"the image set {images.name!r} has no image with a defective patch")
        image = int(rng.choice(anomalous))
        places = np.array([[(image, r, c) for c in range(images.grid[1])] for r in range(images.grid[0])])
        parts = split(images, rng, n)
        return places, np.asarray(images.images[image]), (parts.pool, np.concatenate([parts.estimation, parts.testing]))
    rows, columns = len(images) // images.columns, images.columns
    height, width = min(block[0], rows), min(block[1], columns)
    top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
    numbers = (np.arange(top, top + height)[:, None] * columns) + np.arange(left, left + width)
    picture = np.concatenate([np.concatenate([images.images[i] for i in row], axis=-1) for row in numbers], axis=-2)
    outside = rng.permutation(np.setdiff1d(np.flatnonzero(images.normal), numbers))
    size = min(n, len(outside) // 2)
    return np.stack([numbers, 0 * numbers, 0 * numbers], axis=-1), picture, (outside[:size], outside[size:])


def noise_adequacy(
    images: ImageSet, seed: int, *, n: int, repetitions: int = 20, kinds: Sequence[str] = NOISE_KINDS, points: int = 100
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """How well the noise models describe normal patches that they were not estimated on.

    For each kind of model, quantiles at ``points`` levels of two things that would follow known distributions if the
    model were true, over random splits and positions:

    ``residual``  the whitened held-out patches minus the estimated mean, N(0, 1) (the mean's error is taken out);
    ``statistic``  the test statistic of pairs of held-out patches, as a probability under chi: U(0, 1).

    Returns ``{kind: {"level", "normal", "residual", "probability"}}``, arrays of length ``points``.
    """
    levels = (np.arange(points) + 0.5) / points
    result = {}
    for kind in kinds:
        residuals, probabilities = [], []
        for rep in range(repetitions):
            rng = Streams(seed, "image_noise", images.name, rep).data()
            parts = split(images, rng, n)
            position = tuple(int(rng.integers(size)) for size in images.grid)
            flat = lambda part: images.patches(part, position).reshape(len(part), -1)  # noqa: B023, E731
            estimation, held_out = flat(parts.estimation), flat(np.concatenate([parts.testing, parts.pool]))
            noise = estimate(estimation, kind)
            white = noise.whiten(held_out - noise.mean) / np.sqrt(1 + 1 / len(estimation))
            residuals.append(rng.choice(white.ravel(), size=min(white.size, 20_000), replace=False))
            pairs = held_out[: len(held_out) // 2 * 2].reshape(-1, 2, held_out.shape[1])
            t = noise.statistic(pairs[:, 0] - pairs[:, 1])
            probabilities.append(stats.chi.cdf(t, held_out.shape[1]))
        result[kind] = {
            "level": levels,
            "normal": stats.norm.ppf(levels),
            "residual": np.quantile(np.concatenate(residuals), levels),
            "probability": np.quantile(np.concatenate(probabilities), levels),
        }
    return result
