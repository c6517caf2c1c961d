"""Conformance: what every baseline must do, found by its name; and what single ones must compute."""

from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from sigad.errors import ConfigurationError, NumericalError
from sigad.seeds import trial_streams
from sigad.study import methods
from sigad.study.kinds.knn_synthetic import KnnSynthetic
from sigad.study.kinds.knn_tabular import KnnTabular
from sigad.study.methods.naive import Naive
from sigad.study.rates import rejection_rate, uniformity
from sigad.study.run import run_trials
from tests.settings import SETTING

ROOT = Path(__file__).parents[2]
KNN_METHODS = [name for name in methods.names() if methods.load(name).needs <= KnnSynthetic.offers]


def run(method, repetitions=range(60), scores=(0.3,), **changes):
    """Rows of a method; by default with the threshold 0.3."""
    streams = trial_streams(3, "conformance", "here", repetitions)
    method = methods.load(method)() if isinstance(method, str) else method
    return run_trials(KnnSynthetic(**{**SETTING, **changes}), method, streams, scores=np.array(scores))


def same(a, b):
    """All columns but the time agree to the last bit."""
    return all(np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f") for name in a if name != "seconds")


@pytest.mark.parametrize("method", KNN_METHODS)
class TestEveryBaseline:
    def test_gives_a_row_for_every_trial(self, method):
        rows = run(method)
        tested = rows["status"] == "tested"
        assert 0 < tested.sum()
        np.testing.assert_array_equal(rows["rep"], np.arange(60))
        assert all(len(column) == 60 for column in rows.values())
        assert ((rows["p_value"][tested] >= 0) & (rows["p_value"][tested] <= 1)).all()
        assert (rows["p_low"][tested] <= rows["p_value"][tested]).all()
        assert (rows["p_value"][tested] <= rows["p_high"][tested]).all()
        assert np.isnan(rows["p_value"][~tested]).all()
        assert not rows["reason"].any()

    def test_chunks_do_not_matter(self, method):
        whole = run(method)
        parts = [run(method, range(start, start + 20)) for start in (0, 20, 40)]
        assert same(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})

    def test_sees_the_trials_that_all_see(self, method):
        reference, rows = run("naive"), run(method)
        if methods.load(method).needs_selection:
            np.testing.assert_array_equal(rows["status"], reference["status"])
            # A method with hypotheses of its own tests other differences of the same instances.
            own = methods.load(method).hypotheses is not methods.Method.hypotheses
            if not own:
                np.testing.assert_array_equal(rows["statistic"], reference["statistic"])
            assert own == (not np.array_equal(rows["statistic"], reference["statistic"], equal_nan=True))
        else:
            assert methods.load(method).selects or (rows["status"] == "tested").all()
            both = (reference["status"] == "tested") & (rows["status"] == "tested")
            np.testing.assert_array_equal(rows["statistic"][both], reference["statistic"][both])

    def test_survives_a_selection_of_none(self, method):
        rows = run(method, scores=(1e9,))
        if methods.load(method).needs_selection:
            assert (rows["status"] == "not_selected").all()

    def test_has_a_label_and_a_rule(self, method):
        assert methods.label(method) == methods.load(method).label
        rule = ROOT / "workflow" / "rules" / "trials" / f"{method}.smk"
        assert f"use rule test as test_{method} with:" in rule.read_text()


# Valid methods: 4,000 trials, about 400 tested. The rate exceeds 0.05 + 4 standard errors with probability below 1e-4.
@pytest.mark.parametrize(
    "method",
    ["proposed", "proposed_any_k", "neighbourhood", "wo_pp", "uniform", "unselective_oracle", "conformal", "thinning"],
)
@pytest.mark.parametrize("k", [3, "1-5"])
def test_type1_error_of_valid_methods(method, k):
    scores = KnnSynthetic(**{**SETTING, "k": k}).calibrate(seed=11, size=2000)
    rows = run(method, range(4000), scores, k=k)
    rate = rejection_rate(rows["status"], rows["null_true"], rows["p_value"], measure="type1", alpha=0.05)
    assert rate.n_counted > 250
    assert rate.rate < 0.05 + 4 * np.sqrt(0.05 * 0.95 / rate.n_counted)
    p = rows["p_value"][rows["status"] == "tested"]
    assert uniformity(p).ks_p_value > 1e-4


def test_naive_is_the_chi_tail_and_bonferroni_a_multiple_of_it():
    naive, many, n_fold = run("naive"), run("bonferroni"), run("bonferroni_n")
    tested = naive["status"] == "tested"
    exact = stats.chi.sf(naive["statistic"][tested], df=4)
    np.testing.assert_allclose(naive["p_value"][tested], exact, rtol=1e-9)
    np.testing.assert_allclose(n_fold["p_value"][tested], np.minimum(1, 30 * exact), rtol=1e-9)
    assert (many["p_value"][tested] <= np.minimum(1, special.comb(30, 5) * exact) * (1 + 1e-9)).all()
    assert (many["p_value"][tested] >= np.minimum(1, 30 * exact) * (1 - 1e-9)).all()


def test_bonferroni_does_not_underflow():
    # Some naive p-values are below 5e-324, C(30, 5) times them are not: a sum of logarithms, no product.
    naive, many = run("naive", signal=54.5, k=5), run("bonferroni", signal=54.5, k=5)
    assert ((naive["p_value"] == 0) & (many["p_value"] > 0)).any()


def test_neighbourhood_knows_its_own_truth_and_has_power():
    """Its hypothesis is about all neighbours: of clusters, it is true only where all of these are of one cluster."""
    few, many = run("proposed", range(400), signal=5.0), run("neighbourhood", range(400), signal=5.0)
    power = {
        name: np.mean(rows["p_value"][rows["status"] == "tested"] <= 0.05)
        for name, rows in (("few", few), ("many", many))
    }
    assert power["many"] > 2 * power["few"]
    mixed = dict(model="clusters", clusters=5, n=20, k=4)
    one, all_of_them = (
        run(name, range(100), scores=(-5.0,), **mixed)["null_true"] for name in ("proposed", "neighbourhood")
    )
    assert 0 < all_of_them.sum() < one.sum()
    assert (one.astype(bool) >= all_of_them.astype(bool)).all()


def test_hotelling_is_exact_for_every_instance_of_one_gaussian():
    # 3,000 trials, all tested; KS p below 1e-3 has that probability.
    assert uniformity(run("hotelling_t2", range(3000))["p_value"]).ks_p_value > 1e-3


def test_hotelling_against_the_textbook():
    from sigad.data.synthetic import draw_knn_instances

    stream = trial_streams(3, "conformance", "here", range(1))[0]
    trial = draw_knn_instances([stream.data()], model="parametric", n=30, d=4)
    x, mean = trial.x_test[0], trial.x_train[0].mean(axis=0)
    t2 = (x - mean) @ np.linalg.inv(np.cov(trial.x_train[0].T)) @ (x - mean) * 30 / 31
    assert run("hotelling_t2", range(1))["p_value"][0] == pytest.approx(stats.f.sf(t2 * 26 / (4 * 29), 4, 26), rel=1e-9)


def test_wo_pp_conditions_on_more():
    # Not an inequality of p-values, but the two may not agree throughout.
    a, b = run("proposed"), run("wo_pp")
    assert not np.allclose(a["p_value"], b["p_value"], equal_nan=True)


def test_unknown_and_unsuitable_methods_are_named():
    with pytest.raises(ConfigurationError, match=r"'niave'; did you mean 'naive'"):
        methods.load("niave")
    with pytest.raises(ConfigurationError, match=r"'unselective_oracle' needs fresh_pairs.*offer .*instances, neigh"):
        methods.require_capabilities("unselective_oracle", methods.load("unselective_oracle")(), KnnTabular)


def test_methods_with_parameters_are_told_apart():
    name, method = methods.of({"permutation": {"permutations": 50}})
    assert (name, method.permutations) == ("permutation-permutations=50", 50)
    assert methods.label(name) == "permutation (permutations 50)"
    assert methods.of("permutation")[1].permutations == methods.of({"permutation": None})[1].permutations == 1000
    for entry, message in (
        ({"permutation": {"permutation": 5}}, "did you mean 'permutations'"),
        ({"permutation": {"permutations": "5"}}, "permutations must be an integer, not the text '5'"),
        ({"naive": {}, "uniform": {}}, "a method is a name"),
        ("permutation-permutations=50", "a method is a name"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            methods.of(entry)


class FailsForOne(Naive):
    """The naive test, which has no p-value for one repetition."""

    victim = 0

    def pvalues(self, problems, streams):
        if any(stream.repetition == self.victim for stream in streams):
            raise NumericalError("on purpose")
        return super().pvalues(problems, streams)


def test_a_failing_trial_is_a_row_and_the_others_keep_their_p_values(monkeypatch):
    reference = run("naive")
    victim = int(np.nonzero(reference["status"] == "tested")[0][1])
    monkeypatch.setattr(FailsForOne, "victim", victim)
    rows = run(FailsForOne())
    assert rows["status"][victim] == "failed"
    assert "on purpose" in rows["reason"][victim]
    others = np.arange(60) != victim
    np.testing.assert_array_equal(rows["p_value"][others], reference["p_value"][others])
    assert np.isnan(rows["p_value"][victim])


class Buggy(Naive):
    """A method with a bug."""

    def pvalues(self, problems, streams):
        return 1 / 0


def test_a_bug_is_not_a_failed_trial():
    with pytest.raises(ZeroDivisionError):
        run(Buggy())
