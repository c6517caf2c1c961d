"""Trials of k-nearest-neighbour detection whose instances are rows of real data: of a table, or embeddings of images.

Source: Niihori et al. (NeurIPS 2025), section 5.3 and appendix C.4. The paper is silent on where the covariance, the
threshold and the standardisation come from. Chosen here: each from a fifth of the normal instances that serves for
nothing else, one fifth is the pool of training instances, one is held out for testing, redrawn for every repetition.
The tests know that the covariance is estimated (:mod:`sigad.inference.estimated`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.data.table import Split, Table, split
from sigad.errors import InvalidInputError
from sigad.inference.estimated import EstimatedCovariance
from sigad.knn.components import Components, Transform, choose_components
from sigad.knn.detection import METRICS, Metric, blocks, check_candidates, detect, norm, scores
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost
from sigad.study.knn_problems import KnnKind, KnnProblems
from sigad.study.settings import setting

# Held-out instances that a threshold is estimated on, and such that calibrate conformal p-values, at most: the level of
# a 0.9 quantile then has a standard error of 0.01.
_HELD_OUT = 1000


@dataclass(frozen=True)
class KnnRows(KnnKind):
    """Settings of the kinds whose instances are rows of real data, and what their trials have in common."""

    offers = frozenset(
        {
            "regions",
            "neighbours",
            "neighbourhoods",
            "estimated_covariances",
            "instances",
            "scores_of_normals",
            "normals",
            "thinning",
        }
    )

    instance: str = setting(
        "normal",
        "under test: normal, a held-out normal instance; anomaly, an anomalous one",
        choices=("normal", "anomaly"),
        source="paper",
    )
    transform: Literal["yeo-johnson", "none"] = setting(
        "yeo-johnson",
        "of each column, fitted on rows of its own, before it is standardised: yeo-johnson makes it more normal",
        choices=("yeo-johnson", "none"),
    )
    components: int | str = setting(
        "auto",
        "principal components that are tested: a number, all, or auto for as many as normal tails and the degrees of "
        "freedom of the covariance allow",
        low=1,
        pattern=r"all|auto|[1-9][0-9]*",
    )

    @property
    def anomalous(self) -> bool:
        """Whether an anomaly is under test."""
        return self.instance == "anomaly"

    def rows(self, rng: np.random.Generator, given: Mapping[str, Any]) -> Table:
        """The rows that a trial draws from, of what :meth:`load` returns."""
        raise NotImplementedError

    def trial(self, rng: np.random.Generator, given: Mapping[str, Any]) -> "Trial":
        """One trial, of what :meth:`load` returns."""
        return draw_trial(
            self.rows(rng, given),
            rng,
            n=self.n,
            candidates=self.candidates,
            quantile=self.quantile,
            anomalous=self.anomalous,
            metric=self.metric,
            transform=None if self.transform == "none" else self.transform,
            components=self.components,
        )

    def tested(self, streams: Sequence[Streams], trials: Sequence["Trial"]) -> Iterator[Block]:
        """The problems of trials; those that follow one another and have as many components are tested together."""
        for _, alike in groupby(zip(streams, trials, strict=True), key=lambda pair: len(pair[1].x_test)):
            its, alike_trials = zip(*alike, strict=True)
            yield its, self._problems(alike_trials)

    def cost_of(self, draw: float) -> Cost:
        """What a trial takes if making it takes so many seconds."""
        selected = 1.0 if self.anomalous else 1 - self.quantile
        region = selected * (30e-6 + len(self.candidates) * (3e-6 + 0.1e-6 * self.n))
        return Cost(draw=draw, evaluation=10e-6, piece=region, search=region, memory=800)

    def _problems(self, trials: Sequence["Trial"]) -> KnnProblems:
        detections = detect(
            np.stack([trial.x_test for trial in trials]),
            np.stack([trial.x_train for trial in trials]),
            k=self.candidates,
            threshold=np.array([trial.threshold for trial in trials]),
            metric=self.metric,
        )
        normal = np.full(len(trials), not self.anomalous)
        return KnnProblems(
            detections=detections,
            # What generated real data is unknown: a normal test instance counts as a true null hypothesis.
            null_true=normal,
            normal=normal,
            calibration_scores=np.stack([trial.scores for trial in trials]),
            covariance=EstimatedCovariance(
                scatter=np.stack([trial.scatter for trial in trials]), degrees_of_freedom=trials[0].degrees_of_freedom
            ),
            held_out=np.stack([trial.held_out for trial in trials]),
        )


class Trial(NamedTuple):
    """One trial on a table; all instances are components of transformed and standardised columns.

    Attributes
    ----------
    x_test : (m,) the test instance.
    x_train : (n, m) the training instances, all normal.
    scatter : (m, m) of normal instances, with its ``degrees_of_freedom``.
    scores : (s,) of held-out normal instances.
    threshold : of the anomaly score, a quantile of these.
    row : row of the test instance in the table.
    held_out : (h, m) other normal instances of the testing fifth, at most 1,000, in random order.
    """

    x_test: NDArray[np.float64]
    x_train: NDArray[np.float64]
    scatter: NDArray[np.float64]
    degrees_of_freedom: int
    scores: NDArray[np.float64]
    threshold: float
    row: int
    held_out: NDArray[np.float64]


def training_size(table: Table, n: int) -> int:
    """Number of training instances of a trial: n, or what the fifths of the table allow if that is less.

    The instances that the threshold is estimated on are compared with as many others of their part.
    """
    return max(0, min(n, int(table.normal.sum()) // 5 - 1))


def draw_trial(
    table: Table,
    rng: np.random.Generator,
    *,
    n: int,
    candidates: int | Sequence[int],
    quantile: float,
    anomalous: bool,
    metric: Metric = "l2",
    transform: Transform = None,
    components: int | str = "all",
) -> Trial:
    """Draw one trial: training instances, a test instance, and what the test needs to know of the normal ones.

    Transform, standardisation and principal components are fitted on one fifth of the normal instances. The threshold
    is a quantile of the anomaly scores of another (at most 1,000 of it), each of which is compared with the n that
    follow it in a circle; their number of components is chosen there too. The scatter is that of a third fifth; the
    training instances come from the fourth, a normal test instance from the last.

    Parameters
    ----------
    table : the data set.
    rng : source of randomness; the split is redrawn in every call.
    n : number of training instances, reduced to :func:`training_size`.
    candidates : number of neighbours k, or several.
    quantile : level of the threshold, in (0, 1).
    anomalous : draw the test instance from the anomalies (power) or from held-out normal instances (Type I).
    metric : distance of the score, ``"l2"``, ``"l1"`` or ``"linf"``.
    transform : of each column, ``"yeo-johnson"`` or None.
    components : how many principal components, "all", or "auto" (:func:`sigad.knn.components.choose_components`).

    Raises
    ------
    InvalidInputError
        when the data set is too small for the candidates or for a covariance, has no anomaly although one is asked
        for, or when columns are constant or depend on one another; the message names the columns.
    """
    if not 0 < quantile < 1:
        raise InvalidInputError(f"quantile must lie between 0 and 1, not {quantile!r}")
    if metric not in METRICS:
        raise InvalidInputError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    size, normal = training_size(table, n), int(table.normal.sum())
    if size < np.max(candidates):
        raise InvalidInputError(
            f"data set {table.name!r} is too small: a fifth of its {normal} normal instances allows {size} training "
            f"instances, fewer than k = {np.max(candidates)}; leave it out or choose smaller candidates"
        )
    candidates = check_candidates(candidates, size)
    anomalies = np.flatnonzero(~table.normal)
    if anomalous and not len(anomalies):
        raise InvalidInputError(f"data set {table.name!r} has no anomalies: check which label means normal")

    parts = split(table, rng)
    train = table.x[rng.choice(parts.pool, size, replace=False)]
    row = int(rng.choice(anomalies if anomalous else parts.testing))

    features, held_out = _features(table, parts, transform, components)
    further = rng.permutation(np.setdiff1d(parts.testing, [row]))[:_HELD_OUT]
    scattered = features(table.x[parts.covariance])
    centred = scattered - scattered.mean(axis=0)
    score = scores(_to_following(held_out, size, metric), candidates, held_out.shape[1]).max(axis=-1)
    return Trial(
        x_test=features(table.x[[row]])[0],
        x_train=features(train),
        scatter=centred.T @ centred,
        degrees_of_freedom=len(centred) - 1,
        scores=score,
        threshold=float(np.quantile(score, quantile, method="higher")),
        row=row,
        held_out=features(table.x[further]),
    )


def _to_following(instances: NDArray[np.float64], count: int, metric: Metric) -> NDArray[np.float64]:
    """Distances (N, count) of each instance (N, m) to those that follow it in a circle."""
    # One component after the other, for sums over a short last axis take several times as long; and in blocks that stay
    # in the cache.
    components = np.ascontiguousarray(instances.T)
    circle = np.concatenate([components, components[:, :count]], axis=1)
    following = np.lib.stride_tricks.sliding_window_view(circle, count, axis=1)[:, 1:]
    return np.concatenate(
        [
            norm(np.moveaxis(components[:, block, None] - following[:, block], 0, -1), metric)
            for block in blocks(len(instances), count * len(components))
        ]
    )


def _features(
    table: Table, parts: Split, transform: Transform, components: int | str
) -> tuple[Components, NDArray[np.float64]]:
    """Columns to components, and those of the instances that the threshold is estimated on."""
    fitted, held_out = table.x[parts.features], table.x[parts.threshold[:_HELD_OUT]]
    sd = fitted.std(axis=0)
    if components == "all" and not (sd > 0).all():
        constant = [column for column, s in zip(table.columns, sd, strict=True) if not s > 0]
        raise InvalidInputError(
            f"data set {table.name!r}: {', '.join(constant)} do not vary in a fifth of the normal instances; "
            "leave them out of `columns`"
        )
    features = Components.fit(fitted, transform)
    freedom = len(parts.covariance) - 1
    if components == "auto":
        m, _ = choose_components(features(held_out), freedom)
    elif components == "all":
        _check_regular(table, np.atleast_2d(np.corrcoef(fitted, rowvar=False)), len(fitted))
        m = features.axes.shape[1]
    else:
        m = min(int(components), features.axes.shape[1])
    if freedom < m:
        raise InvalidInputError(
            f"data set {table.name!r} is too small: {freedom + 1} instances to estimate a covariance of {m} components "
            f"of {_listed(table.columns)}; choose fewer `components`"
        )
    features = features.first(m)
    return features, features(held_out)


def _check_regular(table: Table, covariance: NDArray, instances: int) -> None:
    values, vectors = np.linalg.eigh(covariance)
    if values[0] > 1e-10 * values[-1]:
        return
    if instances <= len(values):
        raise InvalidInputError(
            f"data set {table.name!r} is too small: {instances} instances to estimate a covariance of {len(values)} "
            f"columns ({_listed(table.columns)}); choose fewer `columns` or `components`"
        )
    null = np.abs(vectors[:, 0])
    dependent = [column for column, weight in zip(table.columns, null, strict=True) if weight > 1e-3 * null.max()]
    raise InvalidInputError(
        f"data set {table.name!r} has a singular covariance: {', '.join(dependent)} depend linearly on one another; "
        "leave one of them out of `columns`"
    )


def _listed(columns: Sequence[str]) -> str:
    return ", ".join([*columns[:20], *["..."] * (len(columns) > 20)])
