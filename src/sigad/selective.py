"""The selective test for any detector: is what it selected, from these data, more than noise?"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.blackbox import BlackBox, Detect, twice
from sigad.checks import real_array, share
from sigad.errors import InvalidInputError, SigadError
from sigad.inference.contrast import Contrast, linear_contrast, multiply
from sigad.inference.covariance import Covariance
from sigad.inference.estimated import EstimatedScale
from sigad.inference.hypothesis import Hypothesis
from sigad.inference.lattice import Lattice, as_lattice
from sigad.inference.result import TOLERANCE, Decision, TestResult, Tolerance
from sigad.inference.truncated import Alternative, Null, check_alternative


@dataclass(frozen=True, eq=False, repr=False)
class SelectiveResult(TestResult):
    """The result of :func:`selective_test`.

    Besides what every :class:`~sigad.inference.result.TestResult` has (``region`` are the lattice points that lead to
    the same selection, each as an interval [z, z]):

    Attributes
    ----------
    effect : the contrast's value in the data.
    confidence_interval : selective confidence interval for its true value.
    own_weight : probability of the observed point among those with the same selection, given what was conditioned on.
        The p-value cannot be smaller: where it is not small, the lattice was too coarse.
    """

    effect: float
    confidence_interval: tuple[float, float]
    own_weight: float

    def _details(self) -> list[str]:
        low, high = self.confidence_interval
        return [
            f"effect {self.effect:.4g}, confidence interval [{low:.4g}, {high:.4g}]",
            f"own weight {self.own_weight:.3g}",
        ]


@dataclass(frozen=True)
class SelectionHypothesis(Hypothesis):
    """A linear contrast of the data is zero, given that a detector selects what it selected in them."""

    detector: BlackBox
    x: NDArray[np.float64]
    contrast: Contrast
    selection: NDArray

    @property
    def null(self) -> Null:
        return self.contrast.null

    @property
    def statistic(self) -> float:
        return self.contrast.statistic

    def same(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self.detector.same(self.detector(self.contrast.images(self.x, z)), self.selection)


def selective_test(
    x: ArrayLike | Any,
    detect: Detect,
    contrast: ArrayLike | Callable[[NDArray], ArrayLike | None],
    *,
    covariance: Covariance | EstimatedScale,
    engine: str | Lattice = "lattice",
    alternative: Alternative = "two-sided",
    tolerance: Tolerance | Decision | float = TOLERANCE,
    level: float = 0.95,
    memory_budget: int = 2**30,
) -> SelectiveResult:
    """Is a contrast of the data different from zero, although a detector chose it from the same data?

    The data are a signal plus normal noise of known covariance. The null hypothesis is that the contrast of the signal
    is zero. The p-value is exactly valid for every deterministic detector, which is run at some hundred points of a
    line: it conditions on the selection (:mod:`sigad.inference.lattice`, ``docs/any-detector.md``).

    Parameters
    ----------
    x : (*shape) the data under test: an image, an instance, an image stacked on a reference; NumPy or torch, on any
        device.
    detect : any function of a batch (m, *shape), in the kind of x, to selections (m, ...), compared for equality:
        masks, labels, indices. An answer must not depend on what else is in the batch.
    contrast : (*shape) the weights of what is tested, or a function of the selection to them: the mean over a marked
        mask minus the mean over the rest, say. None from the function means that nothing was detected. It must depend
        on the data through the selection only.
    covariance : of x, known or estimated from independent data: a variance, or for the n numbers of x in row-major
        order (n,) variances, an (n, n) matrix, or an operator with ``@``.
    engine : "lattice", or a :class:`~sigad.inference.lattice.Lattice` with spacing, cell, refinement or a generator.
    alternative : "two-sided", "equal-tailed", "greater" or "less".
    tolerance : it is enough when the bounds on the p-value are so close; a number is absolute.
    level : of the confidence interval.
    memory_budget : bytes for a batch and what the detector makes of it; batches shrink when memory runs out.

    Returns
    -------
    SelectiveResult
        with ``status`` "not_selected" when the contrast is None.

    Raises
    ------
    DetectorError
        a detector that raises, draws random numbers, or whose answers are NaN or change their shape or type.
    NumericalError
        a detector that answers differently in a batch and alone.
    InvalidInputError
        for NaN, shapes that do not fit, or a covariance that is not one.
    """
    started, run, enough = time.perf_counter(), as_lattice(engine), Tolerance.of(tolerance)
    check_alternative(alternative)
    level = share(level, "level")
    if contrast is None:
        raise InvalidInputError("contrast must be the weights of what is tested, or a function from selections to them")
    data = real_array(x, "x")
    multiply(covariance, np.zeros(data.size))  # checked before anything is selected
    detector = BlackBox(detect, x, memory_budget=memory_budget)
    selection = twice(lambda: detector(data[None])[0])
    weights = _contrast_of(contrast, selection) if callable(contrast) else contrast
    if weights is None:
        nan = float("nan")
        nothing = {"effect": nan, "confidence_interval": (nan, nan), "own_weight": nan}
        return SelectiveResult.not_selected(selection, time.perf_counter() - started, **nothing)
    weights = real_array(weights, "contrast")
    if weights.shape != data.shape:
        raise InvalidInputError(f"the contrast has the shape {weights.shape}, x {data.shape}: they must be the same")
    line = linear_contrast(weights, float(weights.ravel() @ data.ravel()), covariance)
    hypothesis = SelectionHypothesis(detector, data, line, selection)
    found = run(hypothesis, alternative=alternative, tolerance=enough)
    return SelectiveResult.of_search(
        found,
        line.statistic,
        selection,
        time.perf_counter() - started,
        effect=line.effect,
        confidence_interval=line.confidence_interval(found, level),
        own_weight=found.own_weight,
    )


def _contrast_of(contrast: Callable[[NDArray], Any], selection: NDArray) -> Any:
    try:
        return contrast(selection.copy())
    except SigadError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"the contrast failed for a selection of {selection.dtype} and shape {selection.shape}: "
            f"{type(error).__name__}: {error}. It is a function from selections to weights in the shape of x"
        ) from error
