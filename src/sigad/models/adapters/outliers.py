"""Outlier detectors of PyOD and scikit-learn, for :func:`sigad.instance_test`."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.errors import InvalidInputError

Flags = Callable[[ArrayLike], NDArray[np.bool_]]


def flags(detector: Any, *, alone: bool = False) -> Flags:
    """Which instances a fitted detector flags: a function of a batch (m, *shape) to (m,) bool, on flattened instances.

    Parameters
    ----------
    detector : of PyOD, or any other with a ``decision_function`` that exceeds ``threshold_`` for outliers; or of
        scikit-learn, whose ``predict`` gives -1 for outliers. Fitted to data other than those under test; with a fixed
        ``random_state`` where it has one.
    alone : run it on one instance at a time: for detectors that score the instances of a batch by one another, such as
        PyOD's ECOD and COPOD.

    Raises
    ------
    InvalidInputError : what is not such a detector, or not fitted.
    """
    if hasattr(detector, "threshold_") and hasattr(detector, "decision_function"):
        answer = lambda rows: np.asarray(detector.decision_function(rows)) > detector.threshold_  # noqa: E731
    elif hasattr(detector, "offset_") and hasattr(detector, "predict"):
        answer = lambda rows: np.asarray(detector.predict(rows)) == -1  # noqa: E731
    else:
        raise InvalidInputError(
            f"{type(detector).__name__} must be fitted and have decision_function and threshold_ (PyOD), or predict "
            "and offset_ (outlier detectors of scikit-learn; LocalOutlierFactor with novelty=True)"
        )

    def run(batch: ArrayLike) -> NDArray[np.bool_]:
        rows = _rows(batch)
        return np.concatenate([answer(row[None]) for row in rows]) if alone else answer(rows)

    return run


def refits(detector: Any, *, alone: bool = False) -> Callable[[ArrayLike], Flags]:
    """The ``fit`` of :func:`sigad.instance_test`: fits a copy of the detector to the references (R, *shape)."""

    def fit(references: ArrayLike) -> Flags:
        fitted = copy.deepcopy(detector)
        fitted.fit(_rows(references))
        return flags(fitted, alone=alone)

    return fit


def _rows(batch: ArrayLike) -> NDArray:
    batch = np.asarray(batch)
    return batch.reshape(len(batch), -1)
