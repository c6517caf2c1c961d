"""The method lattice: on every kind that offers lines, its pilots, and the kind instance_synthetic."""

import logging
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sigad.errors import ConfigurationError
from sigad.inference.lattice import Lattice
from sigad.instance import instance_test
from sigad.seeds import trial_streams
from sigad.study import kinds, methods
from sigad.study.kinds.instance_synthetic import DETECTORS, InstanceSynthetic, fitted
from sigad.study.kinds.localization_synthetic import LocalizationSynthetic
from sigad.study.methods.lattice import BATCH, OnLattice
from sigad.study.rates import uniformity
from sigad.study.run import run_experiment, run_trials
from tests.localization.small_detectors import small_unet

SETTING = {"detector": "one_class_svm", "fitted_on": 200, "flagged": 0.3, "references": 20, "nearest": 5, "d": 3}
METHODS = [name for name in methods.names() if methods.load(name).needs <= InstanceSynthetic.offers]
FINE = OnLattice(spacing=0.02)


def run(method, repetitions=range(40), **changes):
    method = methods.load(method)() if isinstance(method, str) else method
    streams = trial_streams(3, "instances", "here", repetitions)
    return run_trials(InstanceSynthetic(**{**SETTING, **changes}), method, streams)


@pytest.mark.parametrize("method", METHODS)
def test_every_baseline_on_instances(method):
    rows, reference = run(method), run("naive")
    tested = rows["status"] == "tested"
    assert 4 < tested.sum() < 40 and not rows["reason"].any()
    np.testing.assert_array_equal(rows["status"], reference["status"])
    np.testing.assert_array_equal(rows["statistic"], reference["statistic"])
    parts = [run(method, range(start, start + 10)) for start in range(0, 40, 10)]
    for name in ("status", "statistic", "p_value", "n_evaluations"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), rows[name])
    assert (Path(__file__).parents[2] / "workflow" / "rules" / "trials" / f"{method}.smk").is_file()


def test_the_rows_are_those_of_instance_test():
    rows, setting = run(FINE, range(10)), InstanceSynthetic(**SETTING)
    detect = fitted("one_class_svm", 200, 0.3, 3)
    ((_, problems),) = setting.draw(trial_streams(3, "instances", "here", range(10)))
    for i in range(10):
        given = {"detect": detect, "covariance": 1.0, "nearest": 5}
        given["engine"] = Lattice(spacing=0.02, batch=BATCH)
        result = instance_test(problems.x[i], problems.references[i], **given)
        assert result.status == rows["status"][i]
        for name in ("statistic", "p_value", "n_evaluations"):
            assert result.status != "tested" or rows[name][i] == getattr(result, name)


@pytest.mark.parametrize("detector", DETECTORS)
def test_randomised_p_values_are_uniform(detector):
    """About 150 flagged instances without a signal; KS p below 1e-4 has that probability."""
    method = OnLattice(spacing=0.2, p_value="randomised")
    rows = run(method, range(500), detector=detector)
    p = rows["p_value"][rows["status"] == "tested"]
    assert len(p) > 60 and uniformity(p).ks_p_value > 1e-4
    assert (rows["null_true"][rows["status"] == "tested"] == True).all()  # noqa: E712


def test_signals_are_found():
    rows = run(OnLattice(spacing=0.1), range(60), signal=7.0)
    tested = rows["status"] == "tested"
    assert tested.sum() > 40 and (rows["p_value"][tested] <= 0.05).mean() > 0.5
    assert (rows["null_true"][tested] == False).all()  # noqa: E712


def test_bonferroni_counts_the_sets_of_neighbours():
    naive, many = run("naive"), run("bonferroni")
    tested = naive["status"] == "tested"
    np.testing.assert_allclose(naive["p_value"][tested], stats.chi.sf(naive["statistic"][tested], 3), rtol=1e-9)
    np.testing.assert_allclose(many["p_value"][tested], np.minimum(1, 15504 * naive["p_value"][tested]), rtol=1e-9)


def test_methods_that_need_a_region_are_refused():
    with pytest.raises(ConfigurationError, match="'proposed' needs regions, and trials of the kind offer evaluations"):
        methods.require_capabilities("proposed", methods.load("proposed")(), InstanceSynthetic)
    with pytest.raises(ConfigurationError, match="nearest = 60"):
        InstanceSynthetic(nearest=60)


class TestPilots:
    def experiment(self, method, repetitions=range(10), **changes):
        points = {"here": InstanceSynthetic(**{**SETTING, **changes})}
        given = {"seed": 5, "experiment": "e", "repetitions": repetitions, "results": Path()}
        return run_experiment(points, method, **given)["here"]

    def test_the_choice_is_logged_and_the_same_for_every_chunk(self, caplog):
        method = OnLattice(evaluations=60, pilots=5)
        with caplog.at_level(logging.INFO, logger="sigad.study.methods.lattice"):
            whole = self.experiment(method, range(20))
            parts = [self.experiment(method, range(start, start + 10)) for start in (0, 10)]
        said = [record.getMessage().splitlines()[0] for record in caplog.records]
        assert len(said) == 3 and len(set(said)) == 1 and said[0].startswith("chosen on 5 pilots: spacing ")
        np.testing.assert_array_equal(np.concatenate([part["p_value"] for part in parts]), whole["p_value"])

    def test_no_trial_has_a_part_in_them(self, monkeypatch):
        """Whatever the trials' data are, the choice is the same; and pilots have no signal."""
        seen, chosen = [], []
        pilots, select = InstanceSynthetic.pilots, OnLattice._chosen

        def noted(self, streams):
            for its, problems in pilots(self, streams):
                seen.append(problems)
                yield its, problems

        def kept(self, engine):
            chosen.append(select(self, engine))
            return chosen[-1]

        monkeypatch.setattr(InstanceSynthetic, "pilots", noted)
        monkeypatch.setattr(OnLattice, "_chosen", kept)
        for signal in (0.0, 6.0):
            self.experiment(OnLattice(evaluations=60, pilots=5), signal=signal)
        assert chosen[0] == chosen[1] and chosen[0].spacing > 0
        np.testing.assert_array_equal(seen[0].x, seen[1].x)
        ((_, trials),) = InstanceSynthetic(**SETTING).draw(trial_streams(5, "e", "here", range(10)))
        assert not np.isin(trials.x, seen[0].x).any() and not np.isin(trials.references, seen[0].references).any()

    def test_a_spacing_that_is_given_needs_no_pilots(self):
        given = OnLattice(spacing=0.1, cell=2)
        assert given.piloted(lambda: pytest.fail("pilots were drawn")) is given

    def test_where_no_pilot_is_selected(self, caplog):
        with caplog.at_level(logging.INFO, logger="sigad.study.methods.lattice"):
            chosen = OnLattice().piloted(lambda: iter(()))
        assert chosen == OnLattice() and "no pilot is selected: spacing 0.05" in caplog.text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    small_unet().save_pretrained(folder)
    return folder


class TestLocalization:
    def run(self, method, model, repetitions=range(20), **changes):
        streams = trial_streams(3, "localization", "here", repetitions)
        return run_trials(LocalizationSynthetic(**{"size": 8, **changes}), method, streams, model=model)

    def test_a_fine_lattice_is_near_the_exact_engine(self, model):
        for name, fine in (("proposed", FINE), ("blocks", methods.of({"lattice_blocks": {"spacing": 0.02}})[1])):
            exact, found = self.run(methods.load(name)(), model), self.run(fine, model)
            tested = exact["status"] == "tested"
            np.testing.assert_array_equal(found["status"], exact["status"])
            difference = (found["p_value"] - exact["p_value"])[tested]
            assert tested.sum() >= 8 and np.median(np.abs(difference)) < 0.03 and difference.min() > -0.05

    def test_a_smooth_network_is_tested_as_it_is(self, tmp_path):
        small_unet(activation="silu").save_pretrained(tmp_path)
        changes = {"activation": "silu", "threshold": 0.4}
        smooth, replaced = (self.run(FINE, tmp_path, range(6), knots=knots, **changes) for knots in (0, 8))
        tested = smooth["status"] == "tested"
        assert tested.any() and not smooth["reason"].any()
        assert not np.array_equal(smooth["p_value"], replaced["p_value"], equal_nan=True)

    def test_pilots_are_drawn_anew_and_without_a_signal(self, model):
        setting, streams = LocalizationSynthetic(size=8, signal=3.0), trial_streams(3, "e", "here", range(3))
        pilots = [problems.trials[0] for _, problems in setting.pilots(streams, model=model)]
        trials = [problems.trials[0] for _, problems in setting.draw(streams, model=model)]
        assert not any(trial.signal.any() for trial in pilots) and all(trial.signal.any() for trial in trials)


def test_only_what_is_selected_is_evaluated_and_paid_for():
    kind = kinds.load("knn_images")
    normal, anomaly = (kind.of({"instance": instance, "quantile": 0.9}).cost() for instance in ("normal", "anomaly"))
    method = OnLattice(evaluations=400)
    assert method.seconds(anomaly) == pytest.approx(anomaly.draw + 400 * anomaly.evaluation)
    assert method.seconds(normal) == pytest.approx(normal.draw + 40 * normal.evaluation)


def test_kinds_that_offer_lines_have_pilots():
    for name in kinds.names():
        kind = kinds.load(name)
        assert ("evaluations" in kind.offers) == ("pilots" in vars(kind)), name
