"""The kind knn_tabular: a draw that keeps estimation, training and testing apart."""

import numpy as np
import pytest
from scipy import stats

from sigad.data.table import Table, split
from sigad.errors import InvalidInputError
from sigad.knn import EstimatedCovariance, knn_test_batch
from sigad.knn.detection import norm, scores
from sigad.study.knn_rows import draw_trial, training_size
from tests.data.test_tabular import gaussian


def test_as_many_training_instances_as_the_fifths_allow():
    for normal in (99, 100, 101):
        table = gaussian(normal)
        parts = split(table, np.random.default_rng(0))
        assert training_size(table, 10**6) == min(len(part) for part in parts) - 1


def test_a_draw_recomputed_by_hand():
    table, candidates = gaussian(500), (1, 3, 5)
    result = draw_trial(table, np.random.default_rng(4), n=30, candidates=candidates, quantile=0.9, anomalous=False)
    parts = split(table, np.random.default_rng(4))
    fitted = table.x[parts.features]
    standard = lambda rows: (table.x[rows] - fitted.mean(axis=0)) / fitted.std(axis=0)  # noqa: E731
    # Components are a rotation: scatter up to it, distances exactly.
    z = standard(parts.covariance)
    eigenvalues = np.linalg.eigvalsh((len(z) - 1) * np.cov(z.T))
    np.testing.assert_allclose(np.linalg.eigvalsh(result.scatter), eigenvalues, rtol=1e-9)
    assert result.degrees_of_freedom == len(z) - 1 == 99
    z = standard(parts.threshold)
    own = [scores(norm(z[i] - z[(i + np.arange(1, 31)) % 100], "l2"), candidates, 4).max() for i in range(100)]
    np.testing.assert_allclose(own, result.scores, rtol=1e-9)
    assert (np.array(own) > result.threshold).mean() == pytest.approx(0.1, abs=0.015)
    assert result.row in parts.testing
    test, pool = standard([result.row])[0], standard(parts.pool)
    assert result.x_train.shape == (30, 4)
    distances = np.linalg.norm(result.x_test - result.x_train, axis=1)
    assert np.abs(distances[:, None] - np.linalg.norm(test - pool, axis=1)).min(axis=1).max() < 1e-9


def test_training_instances_are_distinct_and_the_number_is_what_the_fifths_allow():
    result = draw_trial(gaussian(90), np.random.default_rng(0), n=100, candidates=5, quantile=0.9, anomalous=True)
    assert result.x_train.shape == (17, 4) and len(np.unique(result.x_train, axis=0)) == 17


def test_transforms_and_components():
    """A skewed table is tested on components of transformed columns, as many as are asked for or as are normal."""
    table = gaussian(1500)
    skewed = Table(
        "skewed", np.exp((table.x - table.x.mean(axis=0)) / table.x.std(axis=0)), table.normal, table.columns
    )
    given = dict(n=50, candidates=[1, 5], quantile=0.9, anomalous=False, transform="yeo-johnson")
    two = draw_trial(skewed, np.random.default_rng(0), components=2, **given)
    assert two.x_train.shape == (50, 2) and two.scatter.shape == (2, 2)
    auto = [draw_trial(skewed, np.random.default_rng(i), components="auto", **given) for i in range(20)]
    raw = given | {"transform": None}
    bare = [draw_trial(skewed, np.random.default_rng(i), components="auto", **raw) for i in range(20)]
    assert np.mean([len(t.x_test) for t in auto]) > 2.5 and np.mean([len(t.x_test) for t in bare]) < 1.5


def test_anomalies_for_power():
    table = gaussian()
    rows = {
        draw_trial(table, np.random.default_rng(i), n=20, candidates=3, quantile=0.9, anomalous=True).row
        for i in range(60)
    }
    assert not table.normal[list(rows)].any() and len(rows) > 20


def test_same_stream_same_draw_whatever_the_units():
    table = gaussian()
    scaled = Table("scaled", table.x * [1e-3, 1e3, 1, 2] + 5, table.normal, table.columns)
    first, again, other = (
        draw_trial(t, np.random.default_rng(1), n=20, candidates=[1, 2], quantile=0.9, anomalous=False)
        for t in (table, table, scaled)
    )
    np.testing.assert_array_equal(first.x_test, again.x_test)
    np.testing.assert_allclose(np.abs(first.x_train), np.abs(other.x_train), rtol=1e-8, atol=1e-9)
    assert first.threshold == pytest.approx(other.threshold, rel=1e-9)


@pytest.mark.parametrize("metric", ["l2", "l1", "linf"])
def test_the_threshold_is_that_of_the_metric(metric):
    table, rng = gaussian(6000), np.random.default_rng
    shares = []
    for i in range(200):
        d = draw_trial(table, rng(i), n=40, candidates=[1, 5], quantile=0.8, anomalous=False, metric=metric)
        shares.append(scores(norm(d.x_test - d.x_train, metric), [1, 5], 4).max() > d.threshold)
    assert stats.binomtest(sum(shares), 200, 0.2).pvalue > 1e-3


def test_p_values_are_uniform_on_gaussian_data():
    draws = [
        draw_trial(
            gaussian(1500, seed=i % 40),
            np.random.default_rng(i),
            n=30,
            candidates=[1, 2, 3],
            quantile=0.5,
            anomalous=False,
        )
        for i in range(1200)
    ]
    result = knn_test_batch(
        np.stack([d.x_test for d in draws]),
        np.stack([d.x_train for d in draws]),
        k=[1, 2, 3],
        threshold=np.array([d.threshold for d in draws]),
        covariance=EstimatedCovariance(
            scatter=np.stack([d.scatter for d in draws]), degrees_of_freedom=draws[0].degrees_of_freedom
        ),
    )
    p = result.p_value[result.status == "tested"]
    assert len(p) > 450 and stats.kstest(p, "uniform").pvalue > 1e-3


def test_a_set_that_is_too_small_says_so():
    with pytest.raises(InvalidInputError, match=r"'made up' is too small.*30 normal.*5 training.*k = 10"):
        draw_trial(
            gaussian(30), np.random.default_rng(0), n=100, candidates=range(1, 11), quantile=0.9, anomalous=False
        )
    with pytest.raises(InvalidInputError, match=r"4 instances to estimate a covariance of 4.*a, b, c, d"):
        draw_trial(gaussian(20), np.random.default_rng(0), n=100, candidates=1, quantile=0.9, anomalous=False)


def test_no_anomalies():
    with pytest.raises(InvalidInputError, match=r"no anomalies.*label"):
        draw_trial(gaussian(60, 0), np.random.default_rng(0), n=9, candidates=1, quantile=0.9, anomalous=True)


def test_a_singular_covariance_names_the_columns():
    table = gaussian()
    x = table.x.copy()
    x[:, 3] = x[:, 0] - 2 * x[:, 2]
    with pytest.raises(InvalidInputError, match=r"singular covariance: a, c, d depend.*`columns`"):
        draw_trial(
            Table("t", x, table.normal, table.columns),
            np.random.default_rng(0),
            n=9,
            candidates=1,
            quantile=0.9,
            anomalous=False,
        )
    x[:299, 3], x[299, 3] = 1.0, 2.0
    with pytest.raises(InvalidInputError, match=r"d do not vary in a fifth"):
        draw_trial(
            Table("t", x, table.normal, table.columns),
            np.random.default_rng(1),
            n=9,
            candidates=1,
            quantile=0.9,
            anomalous=False,
        )


@pytest.mark.parametrize("wrong", [{"quantile": 1.0}, {"metric": "cosine"}, {"candidates": 0}])
def test_arguments_out_of_range(wrong):
    arguments = dict(n=9, candidates=1, quantile=0.9, anomalous=False) | wrong
    with pytest.raises(InvalidInputError, match=r"quantile|metric|k must"):
        draw_trial(gaussian(), np.random.default_rng(0), **arguments)
