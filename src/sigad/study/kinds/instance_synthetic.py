"""The kind ``instance_synthetic``: a detector of whole instances of which nothing is known but what it flags."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sigad.errors import ConfigurationError
from sigad.inference.truncated import Null
from sigad.models.adapters.outliers import Flags, flags
from sigad.optional import needs
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost, Kind
from sigad.study.settings import setting

if TYPE_CHECKING:
    from sigad.instance import InstanceHypothesis

DETECTORS = ("isolation_forest", "local_outlier_factor", "one_class_svm")

TOGETHER = 500
"""Trials whose instances are shown to the detector at once."""


@dataclass(frozen=True)
class InstanceProblems:
    """B instances, each with normal references, and whether the detector flags them.

    ``x`` (B, d); ``references`` (B, R, d), of which the ``nearest`` are compared with; ``selected`` (B,); ``normal``
    (B,) whether an instance has no signal, which is what is tested.
    """

    x: NDArray[np.float64]
    references: NDArray[np.float64]
    nearest: int
    detect: Flags
    selected: NDArray[np.bool_]
    normal: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: NDArray) -> "InstanceProblems":
        chosen = {name: getattr(self, name)[which] for name in ("x", "references", "selected", "normal")}
        return replace(self, **chosen)

    @property
    def null(self) -> Null:
        """Distribution of the statistic without selection."""
        return ("chi", self.x.shape[1])

    @property
    def null_true(self) -> NDArray[np.bool_]:
        """Whether the instance has the mean signal of its nearest references, (B,), which have none."""
        return self.normal

    @property
    def statistic(self) -> NDArray[np.float64]:
        """Observed test statistics, (B,)."""
        return np.array([hypothesis.statistic for hypothesis in self.hypotheses()])

    @property
    def log_hypotheses(self) -> NDArray[np.float64]:
        """log C(R, nearest), (B,): the sets of references that could have been the nearest."""
        n, m = self.references.shape[1], self.nearest
        number = special.gammaln(n + 1) - special.gammaln(m + 1) - special.gammaln(n - m + 1)
        return np.full(len(self), number)

    def hypotheses(self) -> "list[InstanceHypothesis]":
        """What is tested, for the engines: the instance's signal is the mean of those of its nearest references."""
        from sigad.instance import InstanceHypothesis

        flagged = lambda points, _: self.detect(points)  # noqa: E731
        return [
            InstanceHypothesis.of(x, references, flagged, covariance=1.0, nearest=self.nearest)
            for x, references in zip(self.x, self.references, strict=True)
        ]


@dataclass(frozen=True)
class InstanceSynthetic(Kind):
    """Instances N(0, I), with a signal if they are anomalous, and a detector of scikit-learn that is fitted once for a
    grid point, to normal instances of its own. What it flags is compared with the mean of the nearest of further normal
    instances."""

    offers = frozenset({"evaluations"})

    detector: str = setting("isolation_forest", "of scikit-learn, with its own defaults", choices=DETECTORS)
    fitted_on: int = setting(500, "normal instances that the detector is fitted to", low=10)
    flagged: float = setting(0.1, "share of these that it flags", above=0, below=0.5)
    references: int = setting(50, "normal instances to compare with", low=1)
    nearest: int = setting(50, "of the references, that make up the mean; all of them: it is fixed beforehand", low=1)
    d: int = setting(10, "dimension", low=1)
    signal: float = setting(0, "added to one random coordinate of the test instance")

    def check(self) -> None:
        if self.nearest > self.references:
            raise ConfigurationError(f"nearest = {self.nearest} needs at least as many references")

    def draw(self, streams: Sequence[Streams]) -> Iterator[Block]:
        """Problems of synthetic instances."""
        detect = fitted(self.detector, self.fitted_on, self.flagged, self.d)
        for start in range(0, len(streams), TOGETHER):
            its = streams[start : start + TOGETHER]
            rngs = [stream.data() for stream in its]
            drawn = np.stack([rng.normal(size=(1 + self.references, self.d)) for rng in rngs])
            x, references = drawn[:, 0], drawn[:, 1:]
            x[np.arange(len(its)), [rng.integers(self.d) for rng in rngs]] += self.signal
            normal = np.full(len(its), self.signal == 0)
            yield its, InstanceProblems(x, references, self.nearest, detect, detect(x), normal)

    def pilots(self, streams: Sequence[Streams]) -> Iterator[Block]:
        """Instances without a signal, which are all that one has before a test, and drawn as those of the trials."""
        return replace(self, signal=0).draw(streams)

    def cost(self) -> Cost:
        # Runs in batches; one instance in seven is flagged.
        evaluation = {"isolation_forest": 60e-6, "local_outlier_factor": 10e-6, "one_class_svm": 4e-6}[self.detector]
        return Cost(draw=0.15e-3, evaluation=evaluation, piece=0.0, search=0.0, memory=1500)


@functools.cache
def fitted(name: str, count: int, flagged: float, d: int) -> Flags:
    """What a detector flags that was fitted to so many instances N(0, I) of d dimensions; the same in every process."""
    with needs("pipeline"):
        from sklearn.ensemble import IsolationForest
        from sklearn.neighbors import LocalOutlierFactor
        from sklearn.svm import OneClassSVM

    detectors: dict[str, Any] = {
        "isolation_forest": IsolationForest(contamination=flagged, random_state=0),
        "local_outlier_factor": LocalOutlierFactor(contamination=flagged, novelty=True),
        "one_class_svm": OneClassSVM(nu=flagged),
    }
    rng = Streams(0, "instance_synthetic", f"{name}_{count}_{flagged}_{d}", 0).selection()
    return flags(detectors[name].fit(rng.normal(size=(count, d))))
