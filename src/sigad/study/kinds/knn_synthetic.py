"""The kind ``knn_synthetic``: k-nearest-neighbour anomaly detection on synthetic instances."""

from collections.abc import Iterator, Sequence

import numpy as np

from sigad.data import noise
from sigad.data.synthetic import MODELS, draw_knn_instances
from sigad.errors import ConfigurationError
from sigad.knn.detection import detect
from sigad.knn.neighbour import blocks
from sigad.study.knn_problems import KnnProblems, check_knn_setting, parse_candidates
from sigad.study.seeds import Streams


def check(setting: dict) -> None:
    """Raise ConfigurationError for a setting that cannot be computed."""
    candidates = check_knn_setting(setting)
    if candidates[-1] > setting["n"]:
        raise ConfigurationError(
            f"k = {setting['k']} needs at least as many training instances, but n = {setting['n']}"
        )
    if setting["distance"] != 0:
        noise.check_distance(setting["noise"], float(setting["distance"]))
    if setting["model"] not in MODELS:
        raise ConfigurationError(f"model must be one of {', '.join(MODELS)}, not {setting['model']!r}")


def draw(setting: dict, streams: Sequence[Streams], *, theta: float) -> Iterator[KnnProblems]:
    """Problems of synthetic instances.

    Parameters
    ----------
    setting : ``model``, ``clusters``, ``n``, ``d``, ``k``, ``signal``, ``metric``, ``noise``, ``distance``.
    streams : one per trial.
    theta : threshold of the anomaly score, from :func:`calibrate_threshold`.
    """
    family = (setting["noise"], float(setting["distance"]))
    for block in blocks(len(streams), setting["n"] * setting["d"]):
        instances = draw_knn_instances(
            [stream.data() for stream in streams[block]],
            model=setting["model"],
            n=setting["n"],
            d=setting["d"],
            clusters=setting["clusters"],
            signal=setting["signal"],
            family=family[0],
            distance=family[1],
        )
        detections = detect(
            instances.x_test,
            instances.x_train,
            k=parse_candidates(setting["k"]),
            threshold=theta,
            metric=setting["metric"],
        )
        difference = instances.signal_difference(detections.index)
        normal = np.full(len(detections), setting["signal"] == 0)
        yield KnnProblems(detections, np.asarray(1.0), (difference == 0).all(axis=-1), normal, difference, family)


def calibrate_threshold(setting: dict, seed: int, size: int) -> float:
    """The threshold theta: a quantile of the anomaly score over held-out normal instances of the same distribution.

    Parameters
    ----------
    setting : as for :func:`draw`, and ``quantile``. The signal does not matter.
    seed : root seed.
    size : number of held-out normal instances, each with training instances of its own.
    """
    normal = {**setting, "signal": 0.0}
    relevant = ("model", "clusters", "n", "d", "k", "metric", "noise", "distance")
    name = "_".join(f"{key}={setting[key]}" for key in relevant)
    streams = [Streams(seed, "calibrate_threshold", name, repetition) for repetition in range(size)]
    scores = [problems.detections.score for problems in draw(normal, streams, theta=np.inf)]
    return float(np.quantile(np.concatenate(scores), setting["quantile"]))
