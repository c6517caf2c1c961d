"""From a setting and a range of repetitions to rows: one per trial, none ever dropped.

An experiment's *kind* says how its trials are made. It is a module ``sigad.study.run.<kind>`` with

``draw(setting, streams, **inputs) -> Iterator``
    the problems of the given trials, in blocks of bounded memory; ``inputs`` is what else they need, a threshold or a
    table, for instance.
``check(setting)``
    raises ConfigurationError for a setting that cannot be computed.

What the rows mean:

======================  ====================================================================================
``rep``                 repetition number
``status``              ``tested``, ``not_selected`` (the detector found no anomaly) or ``failed``
``reason``              why a trial failed, otherwise empty
``null_true``           whether the tested hypothesis is true; missing when nothing was selected
``statistic``           test statistic; NaN unless tested
``p_value``             p-value, with ``p_low`` and ``p_high`` its bounds; NaN unless tested
``n_evaluations``            linear pieces of the detector that were looked at
``seconds``             wall time of the test (a batch's time is shared out equally)
======================  ====================================================================================
"""

import importlib
import time
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from sigad.errors import ConfigurationError, NumericalError
from sigad.inference.result import FAILED, NOT_SELECTED, TESTED
from sigad.study import methods
from sigad.study.seeds import Streams

KINDS = ("knn_synthetic", "knn_tabular", "knn_images", "localization_synthetic")
Rows = dict[str, np.ndarray]

# What a trial may fail with and still be a row. Anything else is a bug and must stop the run.
_FAILURES = (NumericalError, np.linalg.LinAlgError)


def load_kind(kind: str) -> ModuleType:
    """The module of a kind, imported only now: some need torch, which takes seconds."""
    if kind not in KINDS:
        raise ConfigurationError(f"the kind of an experiment must be one of {', '.join(KINDS)}, not {kind!r}")
    return importlib.import_module(f"sigad.study.kinds.{kind}")


def run_trials(kind: str, method: str, setting: dict, streams: Sequence[Streams], **inputs) -> Rows:
    """Test every trial with one method.

    Parameters
    ----------
    kind : one of ``KINDS``.
    method : name of a baseline (:mod:`sigad.study.methods`).
    setting : the parameters of the trials.
    streams : one per repetition.
    inputs : what else the kind needs (a threshold, a table).

    Returns
    -------
    One array of length ``len(streams)`` per column of the table above.

    Raises
    ------
    ConfigurationError
        for an unknown kind or method, or a method that cannot serve the kind.
    """
    baseline = methods.load(method, kind)
    parts, start = [], 0
    for problems in load_kind(kind).draw(setting, streams, **inputs):
        parts.append(_test(baseline, problems, streams[start : start + len(problems)]))
        start += len(problems)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _test(baseline: ModuleType, problems: methods.Problems, streams: Sequence[Streams]) -> Rows:
    if baseline.NEEDS_SELECTION:
        tested, null_true = problems.selected, problems.null_true
    else:
        tested, null_true = np.ones(len(problems), dtype=bool), problems.normal
    rows: Rows = {
        "rep": np.array([stream.repetition for stream in streams], dtype=np.int64),
        "status": np.where(tested, TESTED, NOT_SELECTED).astype(object),
        "reason": np.full(len(streams), "", dtype=object),
        "null_true": np.where(tested, null_true, None),
        "statistic": np.where(tested, problems.statistic, np.nan),
    }
    for name in ("p_value", "p_low", "p_high"):
        rows[name] = np.full(len(streams), np.nan)
    rows["n_evaluations"] = np.zeros(len(streams), dtype=np.int64)
    rows["seconds"] = np.zeros(len(streams))

    def fill(which: np.ndarray) -> None:
        start = time.perf_counter()
        result = baseline.pvalues(problems[which], [streams[i] for i in which])
        rows["seconds"][which] = (time.perf_counter() - start) / len(which)
        for name, values in result._asdict().items():
            rows[name][which] = values

    which = np.nonzero(tested)[0]
    if len(which):
        try:
            fill(which)
        except _FAILURES:  # find out which ones fail: the others keep their p-values
            for i in which:
                try:
                    fill(np.array([i]))
                except _FAILURES as error:
                    rows["status"][i], rows["reason"][i] = FAILED, f"{type(error).__name__}: {error}"
    return rows
