"""Does the noise model hold on a data set? :func:`sigad.diagnose` on held-out normal instances of one split of it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sigad.diagnosis import Diagnosis, diagnose
from sigad.errors import NumericalError
from sigad.inference.estimated import EstimatedCovariance
from sigad.knn.neighbour import knn_test
from sigad.seeds import Streams
from sigad.study.knn_rows import KnnRows

AGAINST = ("neighbour", "neighbourhood")
QUANTILE = 0.7
"""The threshold detects three in ten of the normal instances, of which a fifth is inspected: more say more."""


def diagnosed(setting: KnnRows, seed: int, *, alpha: float, **given: Any) -> dict[str, Diagnosis]:
    """The diagnosis of the tests against the k-th neighbour and against the neighbourhood, by these names.

    The split is that of a trial: components, threshold, covariance and training instances are of a fifth of the normal
    instances each, and the last fifth is diagnosed. ``given``: what the kind's ``load`` returns.
    """
    setting = replace(setting, instance="normal", quantile=QUANTILE)
    trial = setting.trial(Streams(seed, "diagnosis", setting.dataset, 0).data(), **given)
    covariance = EstimatedCovariance(scatter=trial.scatter, degrees_of_freedom=trial.degrees_of_freedom)
    test = partial(
        _p_value,
        x_train=trial.x_train,
        k=setting.candidates,
        threshold=trial.threshold,
        metric=setting.metric,
        covariance=covariance,
    )
    normals = np.concatenate([trial.x_test[None], trial.held_out])
    given_to_all = {"covariance": covariance.matrix, "alpha": alpha}
    return {against: diagnose(normals, test=partial(test, against=against), **given_to_all) for against in AGAINST}


def _p_value(x: NDArray[np.float64], **arguments: Any) -> float:
    """The p-value of an instance; NaN where nothing was detected, or where ties leave none."""
    try:
        return knn_test(x, **arguments).p_value
    except NumericalError:
        return float("nan")


def diagnosis_table(found: Mapping[str, Mapping[str, Diagnosis]]) -> pd.DataFrame:
    """A row for each data set and test, with every number that :func:`sigad.diagnose` gives."""
    frames = [
        diagnosis.to_frame().assign(dataset=dataset, against=against, components=diagnosis.residuals.shape[1])
        for dataset, tests in found.items()
        for against, diagnosis in tests.items()
    ]
    return pd.concat(frames, ignore_index=True).set_index(["dataset", "against", "components"]).reset_index()


def diagnosis_curves(found: Mapping[str, Mapping[str, Diagnosis]], points: int = 60) -> pd.DataFrame:
    """What the figure shows: quantiles of the whitened differences, and of the p-values of each test, at levels."""
    levels = (np.arange(points) + 0.5) / points
    frames = []
    for dataset, tests in found.items():
        for against, diagnosis in tests.items():
            p = diagnosis.p_values[~np.isnan(diagnosis.p_values)]
            values = {"residual": np.quantile(diagnosis.residuals, levels)}
            values["p_value"] = np.quantile(p, levels) if len(p) else np.full(points, np.nan)
            about = {"verdict": diagnosis.verdict, "n_detected": diagnosis.n_detected}
            about |= {"n_rejected": diagnosis.n_rejected, "level": levels}
            frames.append(pd.DataFrame({"dataset": dataset, "against": against, **about, **values}))
    return pd.concat(frames, ignore_index=True)
