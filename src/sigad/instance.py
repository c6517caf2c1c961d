"""The selective test for detectors of whole instances: does one that was flagged differ from normal ones?"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.blackbox import BlackBox, Detect, as_given, twice
from sigad.checks import real_array, whole_number
from sigad.errors import DetectorError, InvalidInputError
from sigad.inference.hypothesis import Hypothesis
from sigad.inference.lattice import Lattice, as_lattice
from sigad.inference.result import TOLERANCE, Decision, TestResult, Tolerance
from sigad.inference.ties import require_no_copies
from sigad.inference.truncated import Null, of_statistics
from sigad.knn.covariance import KnnCovariance, checked, standardised

Flags = Callable[[NDArray[np.float64], Iterable[NDArray[np.float64]]], NDArray[np.bool_]]
"""Instances (m, *shape), and the references (R, *shape) that go with each of them -> which are flagged, (m,)."""


class InstanceSelection(NamedTuple):
    """Whether the instance was ``flagged``, and the ``indices`` of the references with whose mean it is compared."""

    flagged: bool
    indices: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class InstanceResult(TestResult):
    """The result of :func:`instance_test`.

    Besides what every :class:`~sigad.inference.result.TestResult` has (``selection`` is an :class:`InstanceSelection`,
    ``region`` the lattice points that lead to the same selection, each as an interval [z, z]):

    Attributes
    ----------
    difference : (*shape) the instance minus the mean of the references with which it is compared.
    own_weight : probability of the observed point among those with the same selection, given what was conditioned on.
        The p-value cannot be smaller: where it is not small, the lattice was too coarse.
    """

    difference: NDArray[np.float64]
    own_weight: float

    def _details(self) -> list[str]:
        return [f"own weight {self.own_weight:.3g}"]


@dataclass(frozen=True)
class InstanceHypothesis(Hypothesis):
    """The signal of an instance is the mean of those of m references, given that it was flagged and, if they are the
    m nearest, that they are.

    With e = x minus their mean and v = 1 + 1/m, T = || (v Sigma)^(-1/2) e || is chi. On the line, with s = z/T - 1, the
    instance is x + s e/v, each of the m references x_i - s e/(m v), and the others stay (``docs/any-detector.md``).
    """

    x: NDArray[np.float64]
    references: NDArray[np.float64]
    difference: NDArray[np.float64]
    inside: NDArray[np.bool_]
    nearest: bool
    flags: Flags
    statistic: float
    null: Null

    @classmethod
    def of(
        cls,
        x: NDArray[np.float64],
        references: NDArray[np.float64],
        flags: Flags,
        *,
        covariance: KnnCovariance,
        nearest: int | None = None,
    ) -> "InstanceHypothesis":
        """The hypothesis about an instance x (*shape) that was flagged; the others as in :func:`instance_test`."""
        inside = _nearest(np.square(x - references).reshape(len(references), -1).sum(1), nearest or len(references))
        difference = x - references[inside].mean(0)
        t, null = standardised(difference.reshape(1, -1), checked(covariance)[0], _factor(inside))
        chosen = nearest is not None
        return cls(x, references, difference, inside, chosen, flags, float(t[0]), of_statistics(null, 0))

    def same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        e, steps = self.difference, np.asarray(z, np.float64) / self.statistic - 1
        share = steps.reshape(-1, *[1] * e.ndim) / _factor(self.inside)
        moves = self.inside.reshape(-1, *[1] * e.ndim) * (e / self.inside.sum())
        same = self.flags(self.x + share * e, (self.references - step * moves for step in share))
        return same & self._nearest_at(steps) if self.nearest else same

    def _nearest_at(self, steps: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the same references are nearest: x - x_i changes by s e for those, and by s e/v for the others."""
        e, apart = self.difference.ravel(), (self.x - self.references).reshape(len(self.references), -1)
        s = steps[:, None] * np.where(self.inside, 1.0, 1 / _factor(self.inside))
        squares = np.square(apart).sum(1) + 2 * s * (apart @ e) + np.square(s) * (e @ e)
        return (_nearest(squares, int(self.inside.sum())) == self.inside).all(1)


def _factor(inside: NDArray[np.bool_]) -> float:
    """v: the covariance of the difference is so many times that of an instance."""
    return 1 + 1 / int(inside.sum())


def _nearest(distances: NDArray[np.float64], m: int) -> NDArray[np.bool_]:
    """Which are the m smallest of each row; of equal ones, the first."""
    ranks = np.argsort(np.argsort(distances, axis=-1, kind="stable"), axis=-1, kind="stable")
    return ranks < m


def instance_test(
    x: ArrayLike | Any,
    references: ArrayLike | Any,
    *,
    detect: Detect | None = None,
    fit: Callable[[Any], Detect] | None = None,
    covariance: KnnCovariance,
    nearest: int | None = None,
    engine: str | Lattice = "lattice",
    tolerance: Tolerance | Decision | float = TOLERANCE,
    memory_budget: int = 2**30,
) -> InstanceResult:
    """Does an instance that a detector flagged differ from normal reference instances?

    Each instance is a signal plus normal noise of known covariance. The null hypothesis is that the signal of x is the
    mean of the signals of the references, or of those of its m nearest. The p-value is exactly valid for every
    deterministic detector, although it is tested because it was flagged (:mod:`sigad.inference.lattice`,
    ``docs/any-detector.md``).

    Parameters
    ----------
    x : (*shape) the instance; NumPy or torch, on any device.
    references : (R, *shape) normal instances, independent of x.
    detect : a batch (m, *shape), in the kind of x, -> (m,) bool, which are flagged: by a detector whose fit and
        threshold come from data other than x and the references.
    fit : instead of it, a function of the references (R, *shape) to such a detector: it is fitted anew at every point
        of the line, because some references move with x.
    covariance : of the noise of one instance. If known: a variance, (d,) variances or a (d, d) matrix; d = x.size. If
        estimated from rows of their own: :class:`~sigad.inference.estimated.EstimatedCovariance` or ``EstimatedScale``.
    nearest : compare with so many references, those nearest to x (by Euclidean distance); None for all of them.
    engine : "lattice", or a :class:`~sigad.inference.lattice.Lattice` with spacing, cell, refinement or a generator.
    tolerance : it is enough when the bounds on the p-value are so close; a number is absolute.
    memory_budget : bytes for a batch and what the detector makes of it.

    Returns
    -------
    InstanceResult
        with ``status`` "not_selected" when the instance is not flagged.

    Raises
    ------
    DetectorError
        a detector that raises, draws random numbers, or does not return a bool for each instance.
    NumericalError
        a detector that answers differently in a batch and alone; copies of x, or of a reference that it is compared
        with, among the references.
    InvalidInputError
        for NaN, shapes that do not fit, or a covariance that is not positive definite.
    """
    started, run, enough = time.perf_counter(), as_lattice(engine), Tolerance.of(tolerance)
    data, normal = real_array(x, "x"), real_array(references, "references")
    if (detect is None) == (fit is None):
        raise InvalidInputError("give either detect, a detector fitted on other data, or fit, which makes one")
    if normal.ndim != data.ndim + 1 or normal.shape[1:] != data.shape or not normal.size:
        raise InvalidInputError(
            f"references must have shape (R, *shape) for x of shape {data.shape}, not {normal.shape}"
        )
    if nearest is not None and whole_number(nearest, "nearest", least=1) > len(normal):
        raise InvalidInputError(f"nearest must lie between 1 and the {len(normal)} references, not {nearest}")
    box = partial(BlackBox, like=x, memory_budget=memory_budget)
    flags = _Fixed(box(detect)) if fit is None else _Refitted(fit, box, x)
    hypothesis = InstanceHypothesis.of(data, normal, flags, covariance=covariance, nearest=nearest)
    require_no_copies(np.concatenate([data[None], normal]), [0, *(1 + np.flatnonzero(hypothesis.inside))])
    flagged = bool(twice(lambda: flags(data[None], [normal]))[0])
    selection = InstanceSelection(flagged, tuple(np.flatnonzero(hypothesis.inside).tolist()))
    found = run(hypothesis, tolerance=enough) if flagged else None
    difference, seconds = hypothesis.difference, time.perf_counter() - started
    if found is None:
        return InstanceResult.not_selected(selection, seconds, difference=difference, own_weight=float("nan"))
    own = {"difference": difference, "own_weight": found.own_weight}
    return InstanceResult.of_search(found, hypothesis.statistic, selection, seconds, **own)


class _Fixed:
    """The flags of a detector that does not depend on the references."""

    def __init__(self, box: BlackBox):
        self.box = box

    def __call__(self, points: NDArray[np.float64], _: Iterable[NDArray[np.float64]] = ()) -> NDArray[np.bool_]:
        flags = self.box(points)
        if flags.dtype != bool or flags.shape != (len(points),):
            raise DetectorError(
                f"the detector must return a bool for each of the {len(points)} instances of a batch (such as "
                f"score > threshold), not {flags.dtype} of shape {flags.shape}"
            )
        return flags


class _Refitted:
    """The flags of a detector that is fitted anew to the references that go with each instance."""

    def __init__(self, fit: Callable[[Any], Detect], box: Callable[[Detect], BlackBox], like: Any):
        self.fit, self.box, self.like = fit, box, like

    def __call__(self, points: NDArray[np.float64], references: Iterable[NDArray[np.float64]]) -> NDArray[np.bool_]:
        flags = [self._flag(point, normal) for point, normal in zip(points, references, strict=True)]
        return np.array(flags, bool)

    def _flag(self, point: NDArray[np.float64], normal: NDArray[np.float64]) -> np.bool_:
        try:
            detect = self.fit(as_given(normal, self.like))
        except Exception as error:
            raise DetectorError(
                f"fitting the detector to {len(normal)} references failed: {type(error).__name__}: {error}"
            ) from error
        return _Fixed(self.box(detect))(point[None])[0]
