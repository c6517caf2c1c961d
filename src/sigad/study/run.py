"""From a grid point and a range of repetitions to rows: one per hypothesis, none ever dropped.

What the rows mean:

======================  ====================================================================================
``rep``                 repetition number
``hypothesis``          number of the hypothesis within its trial, 0 where there is one
``status``              ``tested``, ``not_selected`` (the detector found no anomaly) or ``failed``
``reason``              why a trial failed, otherwise empty
``null_true``           whether the tested hypothesis is true; missing when nothing was selected
``statistic``           test statistic; NaN unless tested
``p_value``             p-value, with ``p_low`` and ``p_high`` its bounds; NaN unless tested
``n_evaluations``       linear pieces of the detector that were looked at; on a lattice, points at which it was run
``seconds``             wall time of the test (a batch's time is shared out equally)
======================  ====================================================================================
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sigad.errors import NumericalError
from sigad.inference.result import FAILED, NOT_SELECTED, TESTED
from sigad.seeds import Streams, trial_streams
from sigad.study.kinds import Kind
from sigad.study.methods import Method
from sigad.study.problems import Problems

Rows = dict[str, np.ndarray]

PILOTS = 1000
"""So many pilots are drawn at most, for methods that choose something by them before the first trial."""

# What a trial may fail with and still be a row. Anything else is a bug and must stop the run.
_FAILURES = (NumericalError, np.linalg.LinAlgError)


def run_experiment(
    settings: Mapping[str, Kind], method: Method, *, seed: int, experiment: str, repetitions: range, results: Path
) -> dict[str, Rows]:
    """Test the trials of several grid points with one method.

    Parameters
    ----------
    settings : the grid points, by name.
    method : the method.
    seed, experiment, repetitions : what the trials' random streams depend on, beside the grid point's name.
    results : the folder of results, in which the inputs of the trials lie.

    Returns
    -------
    The rows of each grid point.
    """
    loaded: dict[tuple, dict[str, Any]] = {}
    rows = {}
    for point, setting in settings.items():
        files = {name: results / path for name, path in setting.inputs(experiment).items()}
        # Grid points that read the same files, but for a calibration that differs between them, read them once.
        key = (*files.values(), setting.distribution if setting.calibrated else None)
        if key not in loaded:
            loaded = {key: setting.load(files)}
        apart = trial_streams(seed, f"{experiment}: pilots", point, range(PILOTS))
        chosen = method.piloted(partial(setting.pilots, apart, **loaded[key]))
        rows[point] = run_trials(setting, chosen, trial_streams(seed, experiment, point, repetitions), **loaded[key])
    return rows


def run_trials(setting: Kind, method: Method, streams: Sequence[Streams], **given: Any) -> Rows:
    """Test every trial of a grid point with one method.

    Parameters
    ----------
    setting : the grid point.
    method : the method.
    streams : one per repetition.
    given : what the kind's ``load`` returns.

    Returns
    -------
    One array per column of the table above, sorted by repetition and hypothesis.
    """
    parts = [apply(method, problems, its) for its, problems in setting.draw(streams, **given)]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    drawn = list(dict.fromkeys(rows["rep"].tolist()))
    if drawn != [stream.repetition for stream in streams]:
        raise AssertionError(f"{type(setting).__name__} lost or invented trials: {drawn}")
    return rows


def apply(method: Method, problems: Problems, streams: Sequence[Streams]) -> Rows:
    """Test B hypotheses, with their streams, and make a row of each."""
    problems = method.hypotheses(problems)
    tested = problems.selected if method.needs_selection else np.ones(len(problems), dtype=bool)
    null_true = problems.normal if method.of_instance else problems.null_true
    rows: Rows = {
        "rep": np.array([stream.repetition for stream in streams], dtype=np.int64),
        "hypothesis": np.array([stream.hypothesis for stream in streams], dtype=np.int64),
        "status": np.where(tested, TESTED, NOT_SELECTED).astype(object),
        "reason": np.full(len(streams), "", dtype=object),
        "null_true": np.where(tested, null_true, np.array(None)),
        "statistic": np.where(tested, problems.statistic, np.nan),
    }
    for name in ("p_value", "p_low", "p_high"):
        rows[name] = np.full(len(streams), np.nan)
    rows["n_evaluations"] = np.zeros(len(streams), dtype=np.int64)
    rows["seconds"] = np.zeros(len(streams))

    def fill(which: np.ndarray) -> None:
        start = time.perf_counter()
        result = method.pvalues(problems[which], [streams[i] for i in which])
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
    if method.selects:
        nothing = (rows["status"] == TESTED) & np.isnan(rows["p_value"])
        rows["status"][nothing], rows["null_true"][nothing] = NOT_SELECTED, None
    return rows
