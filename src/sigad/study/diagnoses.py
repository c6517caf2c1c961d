"""Does the noise model hold on a data set? :func:`sigad.diagnose` on held-out normal instances of one split of it."""

from collections.abc import Callable, Mapping
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
from sigad.study.kinds.localization_images import LocalizationImages
from sigad.study.knn_rows import KnnRows

AGAINST = ("neighbour", "neighbourhood")
REFERENCES = "references"
QUANTILE = 0.7
"""The threshold detects three in ten of the normal instances, of which a fifth is inspected: more say more."""


def diagnosed(
    setting: KnnRows | LocalizationImages, rng: np.random.Generator, given: Mapping[str, Any], *, alpha: float
) -> dict[str, Diagnosis]:
    """The diagnosis of the tests of a setting, by what they compare with. ``given``: what the kind's ``load`` returns.

    Of rows, the tests against the k-th neighbour and against the neighbourhood. The split is that of a trial:
    components, threshold, covariance and training instances are of a fifth of the normal instances each, and the last
    fifth is diagnosed. Of a stack of images, the test against the references: one normal image of each patient for
    testing or for calibration is diagnosed, so that pairs are independent.
    """
    if isinstance(setting, LocalizationImages):
        return {REFERENCES: _of_images(setting, rng, given, alpha)}
    return _of_rows(setting, rng, given, alpha)


def _of_images(
    setting: LocalizationImages, rng: np.random.Generator, given: Mapping[str, Any], alpha: float
) -> Diagnosis:
    stack, setup = given["stack"], setting.set_up(**given)
    held_out = rng.permutation(np.concatenate([stack.which("calibration"), stack.which("test")]))
    _, first = np.unique(stack.groups[held_out], return_index=True)
    images = stack.images[held_out[np.sort(first)]].astype(np.float64)
    test = partial(_p_value, setup.test)
    return diagnose(images, covariance=setup.model, within=setup.detector.within, test=test, alpha=alpha)


def _of_rows(
    setting: KnnRows, rng: np.random.Generator, given: Mapping[str, Any], alpha: float
) -> dict[str, Diagnosis]:
    setting = replace(setting, instance="normal", quantile=QUANTILE)
    trial = setting.trial(rng, given)
    covariance = EstimatedCovariance(scatter=trial.scatter, degrees_of_freedom=trial.degrees_of_freedom)
    test = partial(
        knn_test,
        x_train=trial.x_train,
        k=setting.candidates,
        threshold=trial.threshold,
        metric=setting.metric,
        covariance=covariance,
    )
    normals = np.concatenate([trial.x_test[None], trial.held_out])
    return {
        against: diagnose(
            normals,
            covariance=covariance.matrix,
            test=partial(_p_value, partial(test, against=against)),
            alpha=alpha,
        )
        for against in AGAINST
    }


def _p_value(test: Callable[[NDArray[np.float64]], Any], x: NDArray[np.float64]) -> float:
    """The p-value of an instance; NaN where nothing was detected, or where ties leave none."""
    try:
        return test(x).p_value
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
            frame = pd.DataFrame({"dataset": dataset, "against": against, "level": levels})
            frame["residual"] = np.quantile(diagnosis.residuals, levels)
            frame["p_value"] = np.quantile(p, levels) if len(p) else np.nan
            for name in ("verdict", "n_detected", "n_rejected"):
                frame[name] = getattr(diagnosis, name)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)
