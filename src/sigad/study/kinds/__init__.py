"""The kinds of experiments: one module each, which holds all that a kind is.

A kind is a frozen dataclass derived from :class:`Kind`. Its fields are the settings of a trial; an instance is one grid
point. Nothing else names it but the configuration: defaults, JSON schema and documentation follow from its fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigad.seeds import Streams
from sigad.study.problems import Problems
from sigad.study.registry import Registry
from sigad.study.settings import Settings

Block = tuple[Sequence[Streams], Problems]
"""The streams of B hypotheses, and the hypotheses."""


class Cost(NamedTuple):
    """What a trial takes on one core, from measurements, on average over the trials in which something is selected and
    those in which nothing is.

    Seconds: ``draw`` to make the data and run the detector; ``evaluation`` to run the detector once more; ``piece`` to
    find the linear piece that holds the observation; ``search`` to find the truncation region. ``memory``: MB.
    ``selected``: the share of the trials in which something is selected, if an evaluation does not count it already.
    ``neighbourhood``: how many times the search takes if all nearest instances move, not one.
    """

    draw: float
    evaluation: float
    piece: float
    search: float
    memory: int
    selected: float = 1.0
    neighbourhood: float = 2.0


@dataclass(frozen=True)
class Kind(Settings):
    """The settings of a trial and all that follows from them.

    Class attributes
    ----------------
    offers : names of the capabilities of its problems (:data:`sigad.study.problems.CAPABILITIES`).
    calibrated : whether a threshold has to be estimated before the first trial, by :meth:`calibrate`.
    """

    offers: ClassVar[frozenset[str]] = frozenset()
    calibrated: ClassVar[bool] = False

    def require(self, config: Mapping[str, Any]) -> None:
        """Raise ConfigurationError or MissingDataError unless what the setting names in the configuration (a data set,
        a network) is known and can be had."""

    def inputs(self, experiment: str) -> dict[str, str]:
        """The files that trials of an experiment read, relative to the folder of results."""
        return {}

    def load(self, files: Mapping[str, Path]) -> dict[str, Any]:
        """What :meth:`draw` takes, from the files that :meth:`inputs` names."""
        return {}

    def draw(self, streams: Sequence[Streams], *args: Any, **given: Any) -> Iterator[Block]:
        """The hypotheses of the given trials, in blocks of bounded memory, in the order of the trials.

        A kind declares what it takes, which is what its :meth:`load` returns, by name.
        A trial has one hypothesis or more, one after the other, each with :meth:`sigad.seeds.Streams.of` its
        number. Where there is nothing to test it has one that is not selected: no trial is ever left out.
        """
        raise NotImplementedError

    def pilots(self, streams: Sequence[Streams], *args: Any, **given: Any) -> Iterator[Block]:
        """Hypotheses like those of the trials, about normal data that have no part in any trial: what a method may
        choose by them is as good as fixed beforehand. Of kinds whose problems offer ``lines``."""
        raise NotImplementedError

    def calibrate(self, seed: int, size: int) -> NDArray[np.float64]:
        """Anomaly scores of held-out normal instances, (size,), from which the threshold is estimated."""
        raise NotImplementedError

    @property
    def distribution(self) -> str:
        """Name of the distribution of :meth:`calibrate`'s scores: settings that share it share the scores."""
        raise NotImplementedError

    def cost(self) -> Cost:
        """What a trial takes."""
        raise NotImplementedError


_REGISTRY = Registry(__name__, __path__, Kind, "kind of experiment")
names, load = _REGISTRY.names, _REGISTRY.load
