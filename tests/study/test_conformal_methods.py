"""Conformal methods and thinning on trials: who calibrates, what is computed, what holds without Gaussian noise."""

import numpy as np
import pytest

from sigad.data.table import Table
from sigad.seeds import trial_streams
from sigad.study import knn_rows
from sigad.study.kinds.knn_synthetic import KnnSynthetic
from sigad.study.kinds.knn_tabular import KnnTabular
from sigad.study.methods.conformal import Conformal
from sigad.study.methods.conformal_selective import ConformalSelective
from sigad.study.methods.conformal_unconditional import ConformalUnconditional
from sigad.study.methods.naive import Naive
from sigad.study.methods.proposed import Proposed
from sigad.study.methods.thinning import Thinning
from sigad.study.run import run_trials
from tests.settings import SETTING


def table(rows=90, anomalies=6):
    x = np.random.default_rng(0).standard_t(4, size=(rows + anomalies, 3))
    x[rows:] += 4
    return Table("t", x, np.arange(rows + anomalies) < rows, ("a", "b", "c"))


def problems_of(setting, streams, **given):
    """The one block of problems of these streams."""
    ((_, problems),) = setting.draw(streams, **given)
    return problems


def test_normals_of_a_table_serve_for_nothing_else():
    rng = np.random.default_rng(5)
    for anomalous in (False, True):
        trial = knn_rows.draw_trial(table(), rng, n=10, candidates=(1, 3), quantile=0.8, anomalous=anomalous)
        # A fifth of the 90 normal rows, all but the one under test.
        assert len(trial.held_out) == (18 if anomalous else 17)
        everything = np.concatenate([trial.x_test[None], trial.x_train, trial.held_out])
        assert len(np.unique(everything.round(9), axis=0)) == len(everything)


def test_p_values_are_ranks_among_the_normals():
    setting, streams = KnnTabular(n=10, k="1-3", quantile=0.6, components="all"), trial_streams(1, "e", "s", range(30))
    rows = {
        method: run_trials(setting, method, streams, table=table(150))
        for method in (Conformal(normals=25), ConformalSelective(normals=25), ConformalUnconditional(normals=25))
    }
    problems = problems_of(setting, streams, table=table(150))
    selective, p = problems[problems.selected].selective().p_value, dict(zip(rows, ([], [], []), strict=True))
    conformal, by_selective, everywhere = p.values()
    for b, others in enumerate(problems.normals(streams, 25)):
        found = others.selected
        as_large = (others.score >= problems.score[b]) & found
        everywhere.append((1 + as_large.sum()) / 26 if problems.selected[b] else 1.0)
        if problems.selected[b]:
            conformal.append((1 + as_large.sum()) / (1 + found.sum()))
            small = others[found].selective().p_value <= selective[len(conformal) - 1]
            by_selective.append((1 + small.sum()) / (1 + found.sum()))
    assert 3 < len(conformal) < 30
    for method, expected in p.items():
        tested = rows[method]["status"] == "tested"
        np.testing.assert_allclose(rows[method]["p_value"][tested], expected, rtol=1e-12)
    assert len(everywhere) == 30


def test_a_normal_without_a_selective_p_value_does_not_count():
    # Copies: the k-th neighbour of some rows is tied, and its test has no p-value.
    copies = table()
    x = copies.x.copy()
    x[:60:2] = x[1:60:2]
    setting, streams = KnnTabular(n=10, k="2", quantile=0.3), trial_streams(1, "e", "s", range(30))
    given = {"table": Table("t", x, copies.normal, copies.columns)}
    conformal, proposed = (
        run_trials(setting, method, streams, **given) for method in (ConformalSelective(), Proposed())
    )
    np.testing.assert_array_equal(conformal["status"], proposed["status"])
    assert (proposed["status"] == "failed").any() and (proposed["status"] == "tested").any()


@pytest.mark.parametrize("method", [Conformal(normals=100), ConformalUnconditional(normals=100)])
def test_conformal_holds_for_heavy_tails(method):
    # 3,000 trials: the rate exceeds the level by 4 standard errors with probability below 1e-4.
    setting = KnnSynthetic(**{**SETTING, "noise": "t", "distance": 0.04, "quantile": 0.7})
    rows = run_trials(setting, method, trial_streams(1, "e", "s", range(3000)), scores=np.array([0.2]))
    tested = rows["status"] == "tested"
    level = 0.1
    assert (rows["null_true"][tested] == True).all()  # noqa: E712
    assert np.mean(rows["p_value"][tested] <= level) <= level + 4 * np.sqrt(level * (1 - level) / tested.sum())


def test_thinning_selects_for_itself():
    streams = trial_streams(1, "e", "s", range(200))
    setting = KnnSynthetic(**SETTING, signal=2)
    thinned, naive = (
        run_trials(setting, method, streams, scores=np.array([0.5])) for method in (Thinning(tau=0.5), Naive())
    )
    assert set(thinned["status"]) == {"tested", "not_selected"}
    assert (thinned["status"] != naive["status"]).any()
    nothing = thinned["status"] == "not_selected"
    assert np.isnan(thinned["p_value"][nothing]).all() and all(truth is None for truth in thinned["null_true"][nothing])
    assert (thinned["null_true"][~nothing] == False).all()  # noqa: E712
