"""The kind ``knn_tabular``: k-nearest-neighbour anomaly detection on a real table."""

from collections.abc import Iterator, Sequence

import numpy as np

from sigad.data import tabular
from sigad.errors import ConfigurationError
from sigad.knn.detection import detect
from sigad.knn.neighbour import blocks
from sigad.study.knn_problems import KnnProblems, check_knn_setting, parse_candidates
from sigad.study.seeds import Streams


def check(setting: dict) -> None:
    """Raise ConfigurationError for a setting that cannot be computed."""
    check_knn_setting(setting)
    if setting["instance"] not in ("normal", "anomaly"):
        raise ConfigurationError(f'instance must be "normal" or "anomaly", not {setting["instance"]!r}')


def draw(setting: dict, streams: Sequence[Streams], *, table: tabular.Table) -> Iterator[KnnProblems]:
    """Problems of a real table: every trial splits the normal rows anew.

    Parameters
    ----------
    setting : ``instance`` ("normal", a held-out normal row, or "anomaly"), ``n`` (at most), ``k``, ``quantile``,
        ``metric``.
    streams : one per trial.
    table : the data set.
    """
    candidates = parse_candidates(setting["k"])
    anomalous = setting["instance"] == "anomaly"
    for block in blocks(len(streams), setting["n"] * table.x.shape[1]):
        trials = [
            tabular.draw(
                table,
                stream.data(),
                n=setting["n"],
                candidates=candidates,
                quantile=setting["quantile"],
                anomalous=anomalous,
                metric=setting["metric"],
            )
            for stream in streams[block]
        ]
        detections = detect(
            np.stack([trial.x_test for trial in trials]),
            np.stack([trial.x_train for trial in trials]),
            k=candidates,
            threshold=np.array([trial.theta for trial in trials]),
            metric=setting["metric"],
        )
        covariance = np.stack([trial.covariance for trial in trials])
        normal = np.full(len(trials), not anomalous)
        # What generated a real row is unknown: a normal test row counts as a true null hypothesis.
        yield KnnProblems(detections, covariance, normal, normal)
