"""The choice of a lattice by pilots."""

import numpy as np
import pytest

from sigad import selective_test
from sigad.errors import InvalidInputError
from sigad.inference.lattice import lattice
from sigad.inference.spacing import Pilots
from tests.inference.test_lattice import Intervals


def choose_spacing(given, *, batch=128, **options):
    engine = Pilots(batch=batch)
    for pilot in given:
        engine(pilot)
    return engine.choose(**options)


def pilots(width, n=12):
    """Truncation sets of one interval of a width, somewhere around T."""
    rng = np.random.default_rng(1)
    for _ in range(n):
        t, below = rng.standard_normal(), width * rng.uniform()
        yield Intervals(t, np.array([[t - below, t - below + width]]))


def test_wide_sets_take_a_coarse_lattice_and_narrow_ones_a_fine_one():
    coarse, fine = (choose_spacing(pilots(width), evaluations=900) for width in (3.0, 0.5))
    assert coarse.engine.spacing >= 2 * fine.engine.spacing
    assert coarse.chosen.power > 2 * fine.chosen.power > 0
    for choice in (coarse, fine):
        assert choice.chosen.evaluations <= 900 and choice.n_pilots == 12 and len(choice.candidates) == 24
        assert str(choice).startswith("chosen on 12 pilots: spacing")


def test_where_no_lattice_has_power_the_own_weight_is_as_small_as_can_be():
    choice = choose_spacing(pilots(0.1), evaluations=900)
    assert choice.chosen.power == 0 and choice.engine.spacing == 0.0125
    assert choice.chosen.own_weight == min(candidate.own_weight for candidate in choice.candidates)


def test_each_pilot_is_evaluated_once():
    given = list(pilots(1.0))
    choose_spacing(given, evaluations=500)
    for pilot in given:
        assert pilot.asked == lattice(pilot, spacing=0.0125, tolerance=1e-3).n_evaluations


def test_candidates_are_what_the_engine_finds_wherever_on_its_line_the_statistic_lies():
    given = list(pilots(0.5, n=3))
    choice = choose_spacing(given, evaluations=900, batch=32)
    assert choice.engine.batch == 32
    for candidate in choice.candidates[::5]:
        powers, own_weights, h, cell = [], [], candidate.spacing, candidate.cell
        for pilot in given:
            z = lattice(pilot, spacing=0.0125, tolerance=1e-3).region[:, 0]
            searches = [lattice(Intervals(t, pilot.region), spacing=h, cell=cell, tolerance=0.0) for t in z]
            rejected = np.array([found.p_value for found in searches]) <= 0.05
            null, tilted = np.exp(-np.square(z) / 2), np.exp(-np.square(z) / 2) * np.cosh(3 * z)
            powers.append(tilted[rejected].sum() / tilted.sum())
            together = np.abs(np.subtract.outer(z, z) / h - np.rint(np.subtract.outer(z, z) / h)) < 1e-6
            together &= True if cell is None else np.equal.outer(np.floor(z / cell), np.floor(z / cell))
            own_weights.append(null @ (null / (together @ null)) / null.sum())
        assert candidate.power == pytest.approx(np.mean(powers), rel=1e-6)
        assert candidate.own_weight == pytest.approx(np.mean(own_weights), rel=1e-6)


def test_pilots_are_an_engine_of_every_test():
    rng, engine = np.random.default_rng(0), Pilots(spacing=0.05)
    given = {"detect": lambda batch: batch.argmax(1), "contrast": lambda i: np.eye(4)[i], "covariance": 1.0}
    p_values = [selective_test(x, engine=engine, **given).p_value for x in rng.standard_normal((5, 4))]
    choice = engine.choose(evaluations=150)
    assert choice.n_pilots == 5 and [found.p_value for found in engine.found] == p_values
    result = selective_test(rng.standard_normal(4), engine=choice.engine, **given)
    assert result.status == "tested" and result.n_evaluations < 300 and len(engine.found) == 5


def test_errors():
    with pytest.raises(InvalidInputError, match="no pilots"):
        choose_spacing([])
    with pytest.raises(InvalidInputError, match="the cheapest"):
        choose_spacing(pilots(1.0), evaluations=2)
