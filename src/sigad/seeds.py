"""Random streams that depend on what is computed, never on how the work is cut into jobs.

A trial's streams are a function of (root seed, experiment, setting, repetition) alone: all methods see the same data,
and ten chunks of ten repetitions give what one chunk of a hundred gives. There is no global random state.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

_DATA, _SELECTION, _METHOD, _NORMALS = range(4)


def name_key(name: str) -> int:
    """A name as 32 bits for a spawn key; the same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


@dataclass(frozen=True)
class Streams:
    """The independent random streams of one trial.

    ``data()`` draws the instances, ``selection()`` what the detector itself randomises, ``method()`` what a test
    randomises (permutations, for instance), ``normals()`` further normal instances, for calibration. Each call starts
    its stream anew. The hypotheses of a trial have a ``method()`` each and share the others.
    """

    seed: int
    experiment: str
    setting: str
    repetition: int
    hypothesis: int = 0

    def of(self, hypothesis: int) -> "Streams":
        """The streams of one of the trial's hypotheses."""
        return replace(self, hypothesis=hypothesis)

    def data(self) -> np.random.Generator:
        """Generator of the trial's data."""
        return self._generator(_DATA)

    def selection(self) -> np.random.Generator:
        """Generator of the detector's own randomness."""
        return self._generator(_SELECTION)

    def method(self) -> np.random.Generator:
        """Generator of a test's own randomness."""
        return self._generator(_METHOD, *([self.hypothesis] if self.hypothesis else []))

    def normals(self) -> np.random.Generator:
        """Generator of normal instances that only calibrate."""
        return self._generator(_NORMALS)

    def _generator(self, *stream: int) -> np.random.Generator:
        spawn_key = (name_key(self.experiment), name_key(self.setting), self.repetition, *stream)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=spawn_key)))


def trial_streams(seed: int, experiment: str, setting: str, repetitions: range) -> list[Streams]:
    """One :class:`Streams` per repetition."""
    return [Streams(seed, experiment, setting, repetition) for repetition in repetitions]
