"""Synthetic instances for the k-nearest-neighbour experiments.

Source: Niihori et al. (NeurIPS 2025), section 5.2 and appendix C.1. The two models:

``parametric``
    every instance is N(0, I).
``clusters``
    the paper's semi-parametric setting: the signals are random means, here those of a few clusters; an instance is
    N(mean of its cluster, I), and the means are N(0, 4^2 I). Number and spread of the clusters are chosen, the paper
    does not state them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigad.data import noise
from sigad.errors import ConfigurationError

MODELS = ("parametric", "clusters")
CLUSTER_SPREAD = 4.0


@dataclass(frozen=True)
class KnnInstances:
    """B independent trials: one test and n training instances each, with the signals that generated them.

    ``x_test`` (B, d), ``x_train`` (B, n, d); ``signal_test`` (B, d); ``centres`` (B, c, d) the possible signals of
    training instances and ``labels`` (B, n) which of them each one has. Noise has unit covariance.
    """

    x_test: NDArray[np.float64]
    x_train: NDArray[np.float64]
    signal_test: NDArray[np.float64]
    centres: NDArray[np.float64]
    labels: NDArray[np.int64]

    def signal_difference(self, index: NDArray) -> NDArray[np.float64]:
        """Signal of the test instance minus the signal of training instance ``index`` (B,), (B, d)."""
        rows = np.arange(len(self.x_test))
        return self.signal_test - self.centres[rows, self.labels[rows, index]]


def draw_knn_instances(
    generators: Sequence[np.random.Generator],
    *,
    model: str,
    n: int,
    d: int,
    clusters: int = 1,
    signal: float = 0.0,
    family: noise.NoiseFamily = "normal",
    distance: float = 0.0,
) -> KnnInstances:
    """Draw one trial from each generator.

    Parameters
    ----------
    generators : one per trial; a trial depends on its own generator only.
    model : ``"parametric"`` or ``"clusters"``.
    n, d : number of training instances, dimension.
    clusters : number of clusters; the parametric model has none.
    signal : added to one random coordinate of the test instance.
    family, distance : distribution of the noise and its 1-Wasserstein distance from N(0, 1), :mod:`sigad.data.noise`.

    Raises
    ------
    ConfigurationError
        for an unknown model.
    """
    if model not in MODELS:
        raise ConfigurationError(f"the model must be one of {', '.join(MODELS)}, not {model!r}")
    clusters = clusters if model == "clusters" else 1
    b = len(generators)
    x = np.empty((b, n + 1, d))
    centres, labels = np.zeros((b, clusters, d)), np.zeros((b, n + 1), dtype=np.int64)
    coordinate = np.empty(b, dtype=np.int64)
    for i, rng in enumerate(generators):
        x[i] = noise.sample(rng, family, distance, (n + 1, d))
        coordinate[i] = rng.integers(d)
        if clusters > 1:
            centres[i] = CLUSTER_SPREAD * rng.standard_normal((clusters, d))
            labels[i] = rng.integers(clusters, size=n + 1)
    rows = np.arange(b)
    # Instance 0 is the test instance.
    signal_test = centres[rows, labels[:, 0]]
    signal_test[rows, coordinate] += signal
    if clusters > 1:
        x[:, 1:] += centres[rows[:, None], labels[:, 1:]]
    return KnnInstances(x[:, 0] + signal_test, x[:, 1:], signal_test, centres, labels[:, 1:])
