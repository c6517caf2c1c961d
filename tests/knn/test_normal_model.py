"""A test fitted on normal rows: its parts are disjoint, its p-values uniform for normal rows, its components few."""

import numpy as np
import pytest
from scipy import stats

from sigad.errors import InvalidInputError
from sigad.knn import NormalModel, knn_test_batch
from sigad.knn.components import Components, choose_components, excess_kurtosis_pvalue
from sigad.study.rates import uniformity


def skewed(rng, n, d=4):
    """Rows that a monotone transform of each column makes normal and correlated."""
    z = rng.normal(size=(n, d)) @ (np.eye(d) + 0.5)
    return np.expm1(0.5 * z)


def test_p_values_of_normal_rows_are_uniform():
    """One detected normal row for each of 400 models, of normal rows: uniform (error probability 1e-4)."""
    rng = np.random.default_rng(0)
    p = []
    for seed in range(400):
        rows = rng.normal(size=(88, 3)) @ np.diag([3, 2, 1])
        model = NormalModel.fit(rows[:80], k=3, transform=None, components=2, quantile=0.5, seed=seed)
        result = model.test(rows[80:])
        p += list(result.p_value[result.status == "tested"][:1])
    assert len(p) > 350 and uniformity(p).ks_p_value > 1e-4


def test_anomalies_are_found_in_skewed_columns():
    rng = np.random.default_rng(1)
    model = NormalModel.fit(skewed(rng, 400), k=range(1, 6))
    assert 2 <= model.pool.shape[1] <= 4 and model.covariance.degrees_of_freedom == 99
    assert "components" in repr(model) and min(model.tails[:-1], default=1) >= 0.1
    normal, anomalous = model.test(skewed(rng, 300)), model.test(skewed(rng, 300) + 60 * np.eye(4)[0])
    assert np.mean(anomalous.p_value <= 0.05) > 0.6
    assert np.nansum(normal.p_value <= 0.05) <= 0.05 * 300


def test_it_is_the_test_of_its_parts():
    rng = np.random.default_rng(2)
    rows, new = rng.normal(size=(101, 6)), rng.normal(size=(9, 6)) + 1
    model = NormalModel.fit(rows, k=[1, 4], components=3, against=2, quantile=0.2)
    direct = knn_test_batch(
        model.features(new),
        model.pool,
        k=[1, 4],
        threshold=model.threshold,
        covariance=model.covariance,
        against=2,
    )
    np.testing.assert_array_equal(model.test(new).p_value, direct.p_value)
    # Every normal row serves one purpose: none changes what it is not for.
    order = np.array_split(np.random.default_rng(0).permutation(101), 4)
    changed = rows.copy()
    changed[order[3]] += 5
    other = NormalModel.fit(changed, k=[1, 4], components=3, against=2, quantile=0.2)
    assert other.threshold == model.threshold and (other.covariance.scatter == model.covariance.scatter).all()
    changed = rows.copy()
    changed[order[2]] *= 3
    other = NormalModel.fit(changed, k=[1, 4], components=3, against=2, quantile=0.2)
    assert other.threshold == model.threshold and (other.pool == model.pool).all()


def test_components_are_principal_and_transforms_monotone():
    rng = np.random.default_rng(3)
    rows = skewed(rng, 500)
    rows[:, 2] = 7.0  # does not vary: left out
    fitted = Components.fit(rows, None)
    assert fitted.kept.tolist() == [True, True, False, True] and fitted.axes.shape == (3, 3)
    covariance = np.cov(fitted(rows).T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-10)
    assert (np.diff(np.diag(covariance)) < 0).all()
    transformed = Components.fit(rows, "yeo-johnson")
    assert stats.skew(transformed(rows)[:, 0]) ** 2 < 0.05 < stats.skew(fitted(rows)[:, 0]) ** 2
    one = Components.fit(rows[:, :1], "yeo-johnson")
    increasing = one(np.sort(rows[:, :1], axis=0))[:, 0]
    assert (np.diff(increasing) * np.sign(one.axes[0, 0]) > 0).all()
    np.testing.assert_array_equal(transformed(rows)[:5], transformed(rows[:5]))


def test_how_many_components():
    rng = np.random.default_rng(4)
    normal = rng.normal(size=(200, 6))
    assert choose_components(normal, 150)[0] == 6 and choose_components(normal, 8)[0] == 4
    heavy = normal.copy()
    heavy[:, 3] = rng.standard_t(2, size=200)
    m, tails = choose_components(heavy, 150)
    assert m == 3 and len(tails) == 4 and tails[3] < 0.1 <= min(tails[:3])
    assert choose_components(rng.standard_t(2, size=(200, 3)), 150)[0] == 1


def test_kurtosis_is_affine_invariant_and_uniform_for_normal_rows():
    """100 p-values of normal rows: uniform (error probability 1e-4)."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(40, 3))
    assert excess_kurtosis_pvalue(rows) == excess_kurtosis_pvalue(rows @ rng.normal(size=(3, 3)) + 9)
    p = [excess_kurtosis_pvalue(rng.normal(size=(30, 2))) for _ in range(100)]
    assert stats.kstest(p, "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": np.zeros((40, 3))}, "there is nothing to fit"),
        ({"rows": np.zeros(40)}, "shape"),
        ({"rows": np.eye(12), "k": 1}, "too few"),
        ({"k": 30}, "k must lie between 1"),
        ({"components": 4}, "there are 3 components"),
        ({"quantile": 1.5}, "quantile"),
        ({"transform": "log"}, "transform must be"),
    ],
)
def test_errors(given, message):
    rows = np.random.default_rng(6).normal(size=(60, 3))
    with pytest.raises(InvalidInputError, match=message):
        NormalModel.fit(**({"rows": rows, "k": 3} | given))
    with pytest.raises(InvalidInputError, match="shape"):
        NormalModel.fit(rows, k=3, components=2).test(np.zeros((2, 4)))


def test_out_of_fold_p_values_are_those_of_models_that_have_not_seen_the_fold():
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(90, 3))
    given = {"k": [1, 3], "components": 2, "quantile": 0.3, "transform": None}
    p = NormalModel.out_of_fold(rows, folds=3, seed=4, **given)
    assert p.shape == (90,) and 30 < np.isnan(p).sum() + 30 < 90
    folds = np.array_split(np.random.default_rng(4).permutation(90), 3)
    for fold in folds:
        rest = np.setdiff1d(np.arange(90), fold)
        np.testing.assert_array_equal(NormalModel.fit(rows[rest], seed=4, **given).test(rows[fold]).p_value, p[fold])
    # A row that is moved changes its own p-value, and those of no row of its fold.
    moved = rows.copy()
    moved[folds[0][0]] += 5
    other = NormalModel.out_of_fold(moved, folds=3, seed=4, **given)
    np.testing.assert_array_equal(other[folds[0][1:]], p[folds[0][1:]])
    assert not np.array_equal(other, p, equal_nan=True)


def test_out_of_fold_keeps_rows_of_a_group_together():
    rng = np.random.default_rng(8)
    rows, images = rng.normal(size=(90, 3)), rng.permutation(np.arange(90) % 11)
    given = {"k": [1, 3], "components": 2, "quantile": 0.3, "transform": None, "folds": 3, "seed": 4}
    p = NormalModel.out_of_fold(rows, groups=[f"image {i:02}" for i in images], **given)
    np.testing.assert_array_equal(p, NormalModel.out_of_fold(rows, groups=images, **given))
    # What a model of a group's fold says of one of its rows does not depend on the group's other rows.
    for image in range(11):
        own = np.flatnonzero(images == image)
        moved = rows.copy()
        moved[own[1:]] += 3
        assert np.array_equal(NormalModel.out_of_fold(moved, groups=images, **given)[own[0]], p[own[0]], equal_nan=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": np.zeros(90)}, "shape"),
        ({"folds": 1}, "folds"),
        ({"folds": 2.5}, "folds"),
        ({"folds": 61}, "60 rows cannot be cut"),
        ({"groups": np.arange(60) % 4}, "4 groups cannot be cut into 5"),
        ({"groups": [1, 2]}, "each of the 60"),
        ({"seed": -1}, "seed"),
        ({"quantile": 2}, "quantile"),
    ],
)
def test_errors_of_out_of_fold(given, message):
    rows = np.random.default_rng(6).normal(size=(60, 3))
    with pytest.raises(InvalidInputError, match=message):
        NormalModel.out_of_fold(**({"rows": rows, "k": 3} | given))
