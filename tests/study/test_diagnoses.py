"""The diagnosis of a data set, and the figures of what holds on real data."""

import numpy as np
import pandas as pd
import pytest

from sigad.data.stack import Preparation, Series, prepare
from sigad.data.table import Table
from sigad.figures.diagnosis import plot_diagnosis
from sigad.figures.rates import COUNTS
from sigad.figures.validity import TESTS, plot_validity, validity
from sigad.study.diagnoses import AGAINST, QUANTILE, diagnosed, diagnosis_curves, diagnosis_table
from sigad.study.kinds.knn_tabular import KnnTabular
from sigad.study.kinds.localization_images import LocalizationImages


def table(name, noise, rows=2000):
    x = np.concatenate([noise(size=(rows, 3)), np.full((3, 3), 9.0) + np.eye(3)])
    return Table(name, x, np.arange(rows + 3) < rows, ("a", "b", "c"))


def contaminated(size):
    """One in ten of the rows has four times the standard deviation."""
    rng = np.random.default_rng(1)
    return rng.normal(size=size) * np.where(rng.random(size[0]) < 0.1, 4.0, 1.0)[:, None]


def test_normal_rows_are_not_refused_and_others_are():
    setting = KnnTabular(transform="none", components="all", instance="anomaly")
    found = {
        name: diagnosed(setting, np.random.default_rng(3), {"table": table(name, noise)}, alpha=0.05)
        for name, noise in (("good", np.random.default_rng(0).normal), ("bad", contaminated))
    }
    # 400 rows are held out, of which the threshold detects three in ten: normal ones are inspected, never anomalies.
    for tests in found.values():
        assert set(tests) == set(AGAINST)
        for diagnosis in tests.values():
            assert diagnosis.n_normals == 400
            assert abs(diagnosis.n_detected - 400 * (1 - QUANTILE)) < 50
    assert found["good"]["neighbourhood"].verdict != "refused" and found["bad"]["neighbourhood"].verdict == "refused"
    assert found["good"]["neighbourhood"].model_p_value > 0.01 > found["bad"]["neighbourhood"].model_p_value
    rows, curves = diagnosis_table(found), diagnosis_curves(found)
    assert list(rows["dataset"]) == ["good", "good", "bad", "bad"] and (rows["components"] == 3).all()
    np.testing.assert_array_equal(rows["type1"], rows["n_rejected"] / rows["n_detected"])
    assert set(curves["dataset"]) == {"good", "bad"}
    assert (curves.groupby(["dataset", "against"])["residual"].diff().dropna() >= 0).all()
    figure = plot_diagnosis(curves)
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()][:2] == ["good", "bad"]


def test_a_stack_is_diagnosed_by_one_image_of_each_held_out_patient():
    rng = np.random.default_rng(0)
    zeros = np.zeros((3, 8, 8), bool)
    parts = [Series(f"p{i}", [f"p{i}_{k}" for k in range(3)], rng.normal(size=(3, 1, 8, 8)), zeros) for i in range(200)]
    stack = prepare(parts, Preparation(size=8, standardise=True), name="made", seed=0)
    setting = LocalizationImages(size=8, resolution=4, flagged=0.7, noise="isotropic")
    given = {"stack": stack, "network": None}
    found = diagnosed(setting, np.random.default_rng(1), given, alpha=0.05)
    ((against, diagnosis),) = found.items()
    held_out = np.unique(stack.groups[np.isin(stack.roles, ["calibration", "test"])])
    assert against == "references" and diagnosis.n_normals == len(held_out) == 80
    assert diagnosis.variance_ratio == pytest.approx(1, abs=0.3) and diagnosis.verdict != "refused"
    assert diagnosis.n_detected > 30 and diagnosis.residuals.shape == (40, 64)
    several = {
        "rows": diagnosed(KnnTabular(), np.random.default_rng(3), {"table": normal()}, alpha=0.05),
        "made": found,
    }
    figure = plot_diagnosis(diagnosis_curves(several))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*AGAINST, "references"]


def normal():
    return table("good", np.random.default_rng(0).normal)


def test_the_figure_of_validity_marks_what_is_shown_to_be_invalid():
    rates = pd.DataFrame(
        [
            {"dataset": dataset, "method": method, **dict.fromkeys(COUNTS, 200), "rate": rate, "low": low, "high": high}
            for dataset, rate, low, high in (("fits", 0.06, 0.03, 0.1), ("fails", 0.2, 0.15, 0.26))
            for method in (*TESTS, "naive")
        ]
    )
    frame = validity(rates)
    assert len(frame) == 8 and set(frame["covariance"]) == {"exact", "plug-in"}
    figure = plot_validity(frame, alpha=0.05)
    assert len(figure.axes) == 2
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    hollow = [line for line in points if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert len(hollow) == 2 and all(x == 0.2 for line in hollow for x in line.get_xdata())
