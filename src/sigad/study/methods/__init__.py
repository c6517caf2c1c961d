"""The tests that are compared: one module each, found by its name.

A baseline is a module ``sigad.study.methods.<name>`` with

``pvalues(problems, streams) -> PValues``
    the p-values of a batch of selected problems (:class:`Problems`); ``streams`` holds one
    :class:`~sigad.study.seeds.Streams` per problem, for methods that randomise.
``APPLIES_TO``
    the kinds of experiments that it can serve, or None for all of them.
``NEEDS_SELECTION``
    True if the hypothesis is the one that the detector selected, so that only detected anomalies are tested; False for
    a test of the instance itself, which is applied to every trial and whose null hypothesis is "the instance is
    normal".
``LABEL``
    what the figures call it.

docs/adding-a-baseline.md shows how to add one.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sigad.errors import ConfigurationError
from sigad.inference.truncated import Null


class PValues(NamedTuple):
    """P-values of B problems, bounds on them (equal where the p-value is exact), and linear pieces looked at; (B,)."""

    p_value: NDArray[np.float64]
    p_low: NDArray[np.float64]
    p_high: NDArray[np.float64]
    n_evaluations: NDArray[np.int64]

    @classmethod
    def exact(cls, p_value: NDArray[np.float64], n_evaluations: NDArray[np.int64] | int = 0) -> "PValues":
        """P-values that need no bounds."""
        return cls(p_value, p_value, p_value, np.broadcast_to(np.asarray(n_evaluations, np.int64), p_value.shape))


class Problems(Protocol):
    """What every baseline may ask of a batch of B selected problems, whichever detector selected them."""

    null: Null

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Whether the detector selected a hypothesis, (B,)."""

    @property
    def null_true(self) -> NDArray[np.bool_]:
        """Whether the selected hypothesis is true, (B,)."""

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Whether the instance under test is a normal one, (B,)."""

    @property
    def statistic(self) -> NDArray[np.float64]:
        """Observed test statistics, (B,)."""

    @property
    def log_hypotheses(self) -> NDArray[np.float64]:
        """Log of the number of hypotheses from which the selection was made, (B,)."""

    def selective(self) -> PValues:
        """The selective test: conditions on the selection and on nothing more."""

    def over_conditioned(self) -> PValues:
        """The selective test without parametric programming: one interval around the observation."""


def names() -> list[str]:
    """The names of all baselines."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str, kind: str | None = None) -> ModuleType:
    """The module of a baseline; raises ConfigurationError if there is none, or if it cannot serve the kind."""
    if name not in names():
        raise ConfigurationError(f"there is no method {name!r}: choose from {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    if kind is not None and module.APPLIES_TO is not None and kind not in module.APPLIES_TO:
        raise ConfigurationError(
            f"the method {name!r} cannot serve experiments of the kind {kind!r}, only {', '.join(module.APPLIES_TO)}"
        )
    return module
