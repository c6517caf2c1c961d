"""What single images show: examples of detected patches, a map of p-values over an image, and how well the noise model
describes normal patches."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from sigad.data.images import ImageSet, split
from sigad.data.patch_noise import NOISE_KINDS, NoiseKind, estimate
from sigad.inference.multiple import benjamini_yekutieli
from sigad.inference.result import TESTED
from sigad.seeds import Streams
from sigad.study.kinds.knn_images import BLOCK, KnnImageProblems, KnnImages
from sigad.study.methods.naive import Naive
from sigad.study.methods.neighbourhood import Neighbourhood
from sigad.study.methods.proposed import Proposed
from sigad.study.run import Rows, apply


@dataclass(frozen=True)
class Example:
    """A detected patch (C, p, p), its selected neighbour, and its p-values: naive, of the paper's test, and against the
    neighbourhood; ``truth`` is "normal" or "anomaly"."""

    truth: str
    patch: NDArray[np.float64]
    neighbour: NDArray[np.float64]
    image: int
    position: tuple[int, int]
    score: float
    naive: float
    selective: float
    neighbourhood: float


def examples(
    setting: KnnImages, images: ImageSet, features: Any, seed: int, *, alpha: float, attempts: int = 60
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
        for its, problems in replace(setting, instance=truth).draw(streams, images=images, features=features):
            looked_at[truth] = looked_at.get(truth, 0) + 1
            selective = apply(Proposed(), problems, its)
            if selective["status"][0] == TESTED and (selective["p_value"][0] <= alpha) == (truth == "anomaly"):
                others = [apply(method, problems, its) for method in (Naive(), Neighbourhood())]
                found.append(_example(truth, problems, selective, *others))
                break
    return found, looked_at


def _example(truth: str, problems: KnnImageProblems, selective: Rows, naive: Rows, neighbourhood: Rows) -> Example:
    detections, (image, row, column) = problems.detections, problems.places[0].tolist()
    return Example(
        truth=truth,
        patch=detections.x_test[0].reshape(problems.shape),
        neighbour=detections.x_train[0, detections.index[0]].reshape(problems.shape),
        image=image,
        position=(row, column),
        score=float(detections.score[0]),
        naive=float(naive["p_value"][0]),
        selective=float(selective["p_value"][0]),
        neighbourhood=float(neighbourhood["p_value"][0]),
    )


def examples_content(found: Sequence[Example], images: ImageSet) -> dict[str, Any]:
    """Examples as named arrays for a file: the pixels of each, and ``facts``, a table as JSON."""
    pixels, facts = {}, []
    for i, example in enumerate(found):
        parts = {"image": images.images[example.image], "patch": example.patch, "neighbour": example.neighbour}
        pixels |= {f"{name}_{i}": part for name, part in parts.items()}
        place = {"image": images.names[example.image], "row": example.position[0], "column": example.position[1]}
        values = {name: getattr(example, name) for name in ("score", "naive", "selective", "neighbourhood")}
        facts.append({"truth": example.truth, **place, "patch": images.patch, **values})
    return {"facts": json.dumps(facts), **pixels}


def examples_table(
    paths: Mapping[str, str | Path],
) -> tuple[pd.DataFrame, dict[int, tuple[NDArray, NDArray, NDArray]]]:
    """The examples in the files of :func:`examples_content`, by data set: a row each, and (image, patch, neighbour)."""
    frames, pixels = [], {}
    for dataset, path in paths.items():
        with np.load(path) as content:
            facts = pd.DataFrame(json.loads(str(content["facts"])))
            for i in range(len(facts)):
                pixels[len(pixels)] = tuple(content[f"{name}_{i}"] for name in ("image", "patch", "neighbour"))
            frames.append(facts.assign(dataset=dataset))
    columns = ["dataset", "truth", "image", "row", "column", "patch", "score", "naive", "selective", "neighbourhood"]
    return pd.concat(
        [frame.reindex(columns=columns) for frame in frames if len(frame)] or [pd.DataFrame(columns=columns)],
        ignore_index=True,
    ), pixels


@dataclass(frozen=True)
class PValueMap:
    """The patches of one picture (C, H, W): (rows, columns) arrays of the share of defective pixels, whether the patch
    was detected, naive and selective p-values (NaN where not detected or failed), and whether the procedure of
    Benjamini & Yekutieli over all patches rejects."""

    picture: NDArray[np.uint8]
    patch: int
    defect: NDArray[np.float64]
    detected: NDArray[np.bool_]
    naive: NDArray[np.float64]
    selective: NDArray[np.float64]
    rejected: NDArray[np.bool_]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each patch."""
        rows, columns = np.indices(self.detected.shape)
        names = ("defect", "detected", "naive", "selective", "rejected")
        values = {name: getattr(self, name).ravel() for name in names}
        return pd.DataFrame({"row": rows.ravel(), "column": columns.ravel(), **values})


def pvalue_map(setting: KnnImages, images: ImageSet, features: Any, seed: int, *, level: float) -> PValueMap:
    """P-values of all detected patches of one anomalous image, and which of them survive the control of the false
    discovery rate (beyond the paper).

    The image is one trial with a hypothesis for each patch. Patches share training instances and overlap in what chose
    them, so that their p-values depend on each other: the procedure is that of Benjamini & Yekutieli, over all patches,
    with 1 for those that were not detected or whose search failed.
    """
    stream = Streams(seed, "image_map", images.name, 0)
    places, detected, naive, selective = [], [], [], []
    for its, problems in replace(setting, instance="image").draw([stream], images=images, features=features):
        places.append(problems.places)
        detected.append(problems.selected)
        naive.append(apply(Naive(), problems, its)["p_value"])
        selective.append(apply(Proposed(), problems, its)["p_value"])
    at = np.concatenate(places)
    shape, picture = _picture(images, at)
    found, p = np.concatenate(detected), np.concatenate(selective)
    rejected = benjamini_yekutieli(p) <= level
    return PValueMap(
        picture,
        images.patch,
        defect=images.defect[tuple(at.T)].astype(np.float64).reshape(shape),
        detected=found.reshape(shape),
        naive=np.concatenate(naive).reshape(shape),
        selective=p.reshape(shape),
        rejected=rejected.reshape(shape),
    )


def _picture(images: ImageSet, places: NDArray[np.int64]) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """Rows and columns of the patches at the places (m, 3), row by row, and the picture (C, H, W) that they make."""
    if images.columns is None:
        return images.grid, np.asarray(images.images[places[0, 0]])
    numbers = places[:, 0].reshape(-1, min(BLOCK[1], images.columns))
    rows = [np.concatenate([images.images[i] for i in row], axis=-1) for row in numbers]
    return numbers.shape, np.concatenate(rows, axis=-2)


def noise_adequacy(
    images: ImageSet,
    seed: int,
    *,
    n: int,
    repetitions: int = 20,
    kinds: Sequence[NoiseKind] = NOISE_KINDS,
    points: int = 100,
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
            row, column = (int(rng.integers(size)) for size in images.grid)
            flat = lambda part: images.patches(part, (row, column)).reshape(len(part), -1)  # noqa: B023, E731
            estimation, held_out = flat(parts.estimation), flat(np.concatenate([parts.testing, parts.pool]))
            noise = estimate(estimation, kind)
            white = noise.whiten(held_out - noise.mean) / np.sqrt(1 + 1 / len(estimation))
            residuals.append(rng.choice(white.ravel(), size=min(white.size, 20_000), replace=False))
            pairs = held_out[: len(held_out) // 2 * 2].reshape(-1, 2, held_out.shape[1])
            t = noise.statistic(pairs[:, 0] - pairs[:, 1])
            probabilities.append(special.gammainc(held_out.shape[1] / 2, t**2 / 2))  # of the chi law
        result[kind] = {
            "level": levels,
            "normal": special.ndtri(levels),
            "residual": np.quantile(np.concatenate(residuals), levels),
            "probability": np.quantile(np.concatenate(probabilities), levels),
        }
    return result
