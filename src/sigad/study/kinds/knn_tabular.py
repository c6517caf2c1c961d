"""The kind ``knn_tabular``: k-nearest-neighbour anomaly detection on a real table.

Source: Niihori et al. (NeurIPS 2025), section 5.3 and appendix C.4. The paper is silent on where the covariance, the
threshold and the standardisation come from. Chosen here: of the normal instances one third serves to estimate these,
one third is the pool of training instances, one third is held out for testing, redrawn for every repetition.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from sigad.data.sources import require_table
from sigad.data.tabular import Table, split
from sigad.errors import InvalidInputError
from sigad.knn.detection import METRICS, Metric, blocks, check_candidates, detect, scores
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost
from sigad.study.knn_problems import KnnKind, KnnProblems
from sigad.study.settings import setting

INSTANCES = ("normal", "anomaly")

_SCIPY_METRIC = dict(zip(METRICS, ("euclidean", "cityblock", "chebyshev"), strict=True))
# Held-out instances that a threshold is estimated on, and such that calibrate conformal p-values, at most: the level of
# a 0.9 quantile then has a standard error of 0.01.
_HELD_OUT = 1000


@dataclass(frozen=True)
class KnnTabular(KnnKind):
    """Rows of a table; every trial splits the normal ones anew and estimates on its own part of them."""

    offers = frozenset({"neighbours", "instances", "scores_of_normals", "normals", "thinning"})

    dataset: str = setting("cancer", "name of the table in `tabular`, config/datasets.yaml", source="paper")
    instance: str = setting(
        "normal",
        "normal: a held-out normal row is tested; anomaly: an anomalous row",
        choices=INSTANCES,
        source="paper",
    )

    def require(self, config: Mapping[str, Any]) -> None:
        require_table(self.dataset, config.get("tabular") or {}, config["data"])

    def inputs(self, experiment: str) -> dict[str, str]:
        return {"table": f"data/{self.dataset}.parquet"}

    def load(self, files: Mapping[str, Path]) -> dict[str, Any]:
        return {"table": Table.load(files["table"])}

    def draw(self, streams: Sequence[Streams], *, table: Table) -> Iterator[Block]:
        """Problems of rows of a table."""
        for block in blocks(len(streams), self.n * table.x.shape[1]):
            trials = [
                draw_trial(
                    table,
                    stream.data(),
                    n=self.n,
                    candidates=self.candidates,
                    quantile=self.quantile,
                    anomalous=self.instance == "anomaly",
                    metric=self.metric,
                )
                for stream in streams[block]
            ]
            detections = detect(
                np.stack([trial.x_test for trial in trials]),
                np.stack([trial.x_train for trial in trials]),
                k=self.candidates,
                threshold=np.array([trial.threshold for trial in trials]),
                metric=self.metric,
            )
            normal = np.full(len(trials), self.instance == "normal")
            yield (
                streams[block],
                KnnProblems(
                    detections=detections,
                    # What generated a real row is unknown: a normal test row counts as a true null hypothesis.
                    null_true=normal,
                    normal=normal,
                    calibration_scores=np.stack([trial.scores for trial in trials]),
                    covariance=np.stack([trial.covariance for trial in trials]),
                    held_out=np.stack([trial.held_out for trial in trials]),
                ),
            )

    def cost(self) -> Cost:
        # Drawing splits the table and computes distances of up to 1,000 rows.
        selected = 1.0 if self.instance == "anomaly" else 1 - self.quantile
        region = selected * (30e-6 + len(self.candidates) * (3e-6 + 0.1e-6 * self.n))
        return Cost(draw=1e-3, evaluation=100e-6, piece=region, search=region, memory=800)


class Trial(NamedTuple):
    """One trial on a table; all instances are standardised with the estimation third.

    Attributes
    ----------
    x_test : (d,) the test instance.
    x_train : (n, d) the training instances, all normal.
    covariance : (d, d) of normal instances.
    scores : (m,) of held-out normal instances.
    threshold : of the anomaly score, a quantile of these.
    row : row of the test instance in the table.
    held_out : (m, d) other normal instances of the testing third, at most 1,000, in random order.
    """

    x_test: NDArray[np.float64]
    x_train: NDArray[np.float64]
    covariance: NDArray[np.float64]
    scores: NDArray[np.float64]
    threshold: float
    row: int
    held_out: NDArray[np.float64]


def training_size(table: Table, n: int) -> int:
    """Number of training instances of a trial: n, or what the thirds of the table allow if that is less.

    The reference set of the threshold has the same size and leaves at least as many instances held out.
    """
    normal = int(table.normal.sum())
    estimation, pool = -(-normal // 3), -(-(normal - 1) // 3)  # sizes of np.array_split
    return min(n, estimation // 2, pool)


def draw_trial(
    table: Table,
    rng: np.random.Generator,
    *,
    n: int,
    candidates: int | Sequence[int],
    quantile: float,
    anomalous: bool,
    metric: Metric = "l2",
) -> Trial:
    """Draw one trial: training instances, a test instance, and covariance and threshold that do not depend on them.

    Mean, standard deviation and covariance come from the estimation third. Its first n instances are a reference
    training set, and the threshold is a quantile of the anomaly scores that the remaining ones (at most 1,000) obtain
    against it; the training instances come from the pool, a normal test instance from the testing third.

    Parameters
    ----------
    table : the data set.
    rng : source of randomness; the split is redrawn in every call.
    n : number of training instances, reduced to :func:`training_size`.
    candidates : number of neighbours k, or several.
    quantile : level of the threshold, in (0, 1).
    anomalous : draw the test instance from the anomalies (power) or from held-out normal instances (Type I).
    metric : distance of the score, ``"l2"``, ``"l1"`` or ``"linf"``.

    Raises
    ------
    InvalidInputError
        when the data set is too small for the candidates or for a covariance, has no anomaly although one is asked
        for, or when the covariance of the estimation third is singular; the message names the columns.
    """
    if not 0 < quantile < 1:
        raise InvalidInputError(f"quantile must lie between 0 and 1, not {quantile!r}")
    if metric not in METRICS:
        raise InvalidInputError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    size, normal = training_size(table, n), int(table.normal.sum())
    if size < np.max(candidates):
        raise InvalidInputError(
            f"data set {table.name!r} is too small: a third of its {normal} normal instances allows {size} training "
            f"instances, fewer than k = {np.max(candidates)}; leave it out or choose smaller candidates"
        )
    candidates = check_candidates(candidates, size)
    anomalies = np.flatnonzero(~table.normal)
    if anomalous and not len(anomalies):
        raise InvalidInputError(f"data set {table.name!r} has no anomalies: check which label means normal")

    thirds = split(table, rng)
    train = table.x[rng.choice(thirds.pool, size, replace=False)]
    row = int(rng.choice(anomalies if anomalous else thirds.testing))

    estimation = table.x[thirds.estimation]
    mean, sd = estimation.mean(axis=0), estimation.std(axis=0, ddof=1)
    if not (sd > 0).all():
        constant = [column for column, s in zip(table.columns, sd, strict=True) if not s > 0]
        raise InvalidInputError(
            f"data set {table.name!r}: {', '.join(constant)} do not vary in a third of the normal instances; "
            "leave them out of `columns`"
        )
    standardised = (estimation - mean) / sd
    covariance = np.atleast_2d(np.cov(standardised, rowvar=False))
    _check_regular(table, covariance, len(estimation))
    reference, held_out = standardised[:size], standardised[size : size + _HELD_OUT]
    score = scores(cdist(held_out, reference, _SCIPY_METRIC[metric]), candidates, len(sd)).max(axis=-1)
    threshold = float(np.quantile(score, quantile, method="higher"))
    further = rng.permutation(np.setdiff1d(thirds.testing, [row]))[:_HELD_OUT]
    scaled = lambda x: (x - mean) / sd  # noqa: E731
    return Trial(scaled(table.x[row]), scaled(train), covariance, score, threshold, row, scaled(table.x[further]))


def _check_regular(table: Table, covariance: NDArray, instances: int) -> None:
    values, vectors = np.linalg.eigh(covariance)
    if values[0] > 1e-10 * values[-1]:
        return
    if instances <= len(values):
        raise InvalidInputError(
            f"data set {table.name!r} is too small: {instances} instances to estimate a covariance of {len(values)} "
            f"columns ({', '.join(table.columns)}); choose fewer `columns`"
        )
    null = np.abs(vectors[:, 0])
    dependent = [column for column, weight in zip(table.columns, null, strict=True) if weight > 1e-3 * null.max()]
    raise InvalidInputError(
        f"data set {table.name!r} has a singular covariance: {', '.join(dependent)} depend linearly on one another; "
        "leave one of them out of `columns`"
    )
