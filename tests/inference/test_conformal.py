"""Conformal p-values: exact super-uniformity by enumeration, ties, weights, and the optional library nonconform."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigad.errors import InvalidInputError
from sigad.inference.conformal import detection_conditional, unconditional
from sigad.inference.multiple import benjamini_hochberg


def leave_one_out(scores, detected, weights, function, **options):
    """p-values and smallest ones when each of the instances in turn is the one under test."""
    results = []
    for i in range(len(scores)):
        rest = np.arange(len(scores)) != i
        weighted = {} if weights is None else {"weights": weights[i], "calibration_weights": weights[rest]}
        results.append(
            function(
                scores[i],
                scores[rest],
                detected=detected[i],
                calibration_detected=detected[rest],
                **weighted,
                **options,
            )
        )
    return np.array([r.p_value for r in results]), np.array([r.smallest for r in results])


def test_super_uniform_exactly_for_every_multiset_of_four():
    # Given the multiset of the four instances (score, detected), exchangeability makes each the one under test with the
    # same probability: the p-value's law is what is enumerated here, ties included.
    values = list(itertools.product([0.0, 1.0, 2.0, 3.0], [True, False]))
    for instances in itertools.combinations_with_replacement(values, 4):
        scores, detected = (np.array(column) for column in zip(*instances, strict=True))
        everywhere, smallest = leave_one_out(scores, detected, None, unconditional)
        for level in everywhere:
            assert np.mean(everywhere <= level) <= level + 1e-12
        assert (everywhere >= smallest - 1e-12).all() and (everywhere[~detected] == 1).all()
        some, smallest = leave_one_out(scores, detected, None, detection_conditional)
        assert (np.isnan(some) == ~detected).all()
        for level in some[detected]:
            assert np.mean(some[detected] <= level) <= level + 1e-12
        if len(np.unique(scores[detected])) == detected.sum() > 0:  # without ties: uniform on the attainable values
            np.testing.assert_allclose(np.sort(some[detected]), np.arange(1, detected.sum() + 1) / detected.sum())
            assert (smallest[detected] == 1 / detected.sum()).all()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.floats(0.01, 10)), min_size=1, max_size=7),
    st.sampled_from([detection_conditional, unconditional]),
)
def test_weighted_super_uniform_exactly(instances, function):
    # Weighted exchangeability: given the multiset, an instance is the one under test with probability ~ its weight.
    scores, detected, weights = (np.array(column) for column in zip(*instances, strict=True))
    scores = scores.astype(float)
    p, smallest = leave_one_out(scores, detected, weights, function)
    counted = detected if function is detection_conditional else np.ones_like(detected)
    for level in p[counted]:
        assert weights[counted & (p <= level)].sum() <= (level + 1e-9) * weights[counted].sum()
    assert (p[counted] >= smallest[counted] * (1 - 1e-12)).all()


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=4), min_size=1, max_size=5),
    st.sampled_from([detection_conditional, unconditional]),
)
def test_grouped_super_uniform_exactly(groups, function):
    # Exchangeable groups: given them, each is the new one with the same probability, and of it an instance (given
    # detection: a detected one) is drawn. Groups of which none is detected do not count, given detection.
    outcomes, conditional = [], function is detection_conditional
    for i, new in enumerate(groups):
        others = [(label, *one) for label, group in enumerate(groups) if label != i for one in group]
        labels, scores, found = (np.array(column) for column in zip(*others, strict=True)) if others else ([], [], [])
        drawn = [one for one in new if one[1]] if conditional else new
        for score, detected in drawn:
            result = function(
                float(score),
                np.asarray(scores, float),
                detected=detected,
                calibration_detected=np.asarray(found, bool),
                calibration_groups=np.asarray(labels, int),
            )
            counted = len(groups) - 1 if not conditional else len({*np.asarray(labels)[np.asarray(found, bool)]})
            assert (result.n_calibration, result.smallest) == (counted, 1 / (counted + 1))
            outcomes.append((float(result.p_value), 1 / len(drawn)))
    for level, _ in outcomes:
        total = sum(weight for _, weight in outcomes)
        assert sum(weight for p, weight in outcomes if p <= level) <= (level + 1e-9) * total


def test_groups_by_hand():
    # Group a has 5, 3, 4, group b 9 (not detected) and 1. Text and numbers are labels alike.
    calibration, found = np.array([5.0, 9.0, 3.0, 4.0, 1.0]), np.array([True, False, True, True, True])
    for groups in (list("abaab"), np.array(list("abaab"), object), [7, 1, 7, 7, 1]):
        given = {"calibration_detected": found, "calibration_groups": groups}
        result = detection_conditional([4.5, 0.0, 2.0], calibration, **given)
        np.testing.assert_allclose(result.p_value, [(1 + 1 / 3) / 3, 1, (1 + 1) / 3])
        result = unconditional([4.5, 0.0, 2.0], calibration, **given)
        np.testing.assert_allclose(result.p_value, [(1 + 1 / 3) / 3, (1 + 1 + 1 / 2) / 3, 2 / 3])
    # Groups of one are no groups.
    alone = detection_conditional(4.5, calibration, calibration_detected=found, calibration_groups=np.arange(5))
    assert alone == detection_conditional(4.5, calibration, calibration_detected=found)
    # 19 groups of three scores: the smallest p-value is 1 / 20, not one that rounding makes larger.
    many = detection_conditional(1.0, np.zeros(57), calibration_groups=np.repeat(np.arange(19), 3))
    assert many.p_value == many.smallest == 1 / 20


def test_patients_differ_more_than_slices():
    # Twenty slices of a patient or, for every third one, two that differ more: pooled p-values fail, for most scores
    # are of the others. 20,000 slices of new patients, twenty for each calibration: the rate has a standard deviation
    # of 0.0015, and P(rate > 0.055) < 6e-4 if p is valid.
    rng, rejected = np.random.default_rng(3), np.zeros(2, int)
    sizes = np.where(np.arange(30) % 3, 20, 2)
    labels = np.repeat(np.arange(30), sizes)
    for _ in range(1000):
        spread = np.where(sizes == 2, 2.0, 0.5)
        calibration = (spread * rng.normal(size=30))[labels] + 0.3 * rng.normal(size=len(labels))
        new = rng.integers(30, size=20)  # kinds of patients, not the patients
        scores = spread[new] * rng.normal(size=20) + 0.3 * rng.normal(size=20)
        for i, groups in enumerate((labels, None)):
            p = detection_conditional(scores, calibration, calibration_groups=groups).p_value
            rejected[i] += np.count_nonzero(p <= 0.05)
    assert rejected[0] <= 0.055 * 20000 < rejected[1]


def test_randomised_ties_are_uniform_by_enumeration():
    # With a share U the p-value of a position is uniform on an interval; over the positions these tile [0, 1].
    scores, detected = np.array([2.0, 1.0, 1.0, 1.0, 0.0]), np.ones(5, bool)

    class Fixed(np.random.Generator):
        def __init__(self, share):
            super().__init__(np.random.PCG64(0))
            self.share = share

        def random(self, shape):
            return np.full(shape, self.share)

    low, smallest = leave_one_out(scores, detected, None, detection_conditional, rng=Fixed(0.0))
    high, _ = leave_one_out(scores, detected, None, detection_conditional, rng=Fixed(1.0))
    np.testing.assert_allclose(np.unique(np.stack([low, high], 1), axis=0), [[0, 0.2], [0.2, 0.8], [0.8, 1]])
    np.testing.assert_allclose([low[0], high[0]], [0, 0.2])
    assert (smallest == 0).all()


def test_formulas_by_hand():
    calibration, found = np.array([5.0, 3.0, 9.0, 1.0]), np.array([True, True, False, True])
    result = detection_conditional([4.0, 6.0, 0.0], calibration, calibration_detected=found)
    np.testing.assert_allclose(result.p_value, [2 / 4, 1 / 4, 1])
    np.testing.assert_allclose(result.smallest, 1 / 4)
    assert (result.n_calibration == 3).all()
    result = unconditional([4.0, 6.0, np.nan], calibration, detected=[True, True, False], calibration_detected=found)
    np.testing.assert_allclose(result.p_value, [2 / 5, 1 / 5, 1])
    assert (result.n_calibration == 4).all()
    # What was not detected is never as extreme, whatever its score, and has the p-value 1, whatever is drawn.
    for extreme in ("large", "small"):
        given = dict(extreme=extreme, calibration_detected=[False, True])
        sign = 1 if extreme == "large" else -1
        assert unconditional(sign * -1.0, [sign * 5.0, sign * -3.0], **given).p_value == pytest.approx(1 / 3)
        assert unconditional(0.0, [1.0, 2.0], detected=False, rng=np.random.default_rng(0), **given).p_value == 1
    # Selective p-values in place of scores: small ones are extreme.
    result = detection_conditional([0.02, 0.5], [0.01, 0.2, 0.6], extreme="small")
    np.testing.assert_allclose(result.p_value, [2 / 4, 3 / 4])
    # Weights: own and calibration's on a common scale.
    result = detection_conditional([4.0], [5.0, 3.0], weights=[2.0], calibration_weights=[1.0, 4.0])
    np.testing.assert_allclose([result.p_value, result.smallest], [[3 / 7], [2 / 7]])
    # No calibration score: nothing can ever be rejected.
    result = detection_conditional([4.0], [5.0], calibration_detected=[False])
    assert (result.p_value[0], result.smallest[0], result.n_calibration[0]) == (1, 1, 0)


def test_each_test_may_have_its_own_calibration():
    rng = np.random.default_rng(0)
    scores, calibration, found = rng.normal(size=6), rng.normal(size=(6, 9)), rng.random((6, 9)) < 0.7
    batch = detection_conditional(scores, calibration, calibration_detected=found)
    for i in range(6):
        single = detection_conditional(scores[i], calibration[i], calibration_detected=found[i])
        assert (single.p_value, single.smallest) == (batch.p_value[i], batch.smallest[i])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [np.nan]}, "finite"),
        ({"calibration": [np.inf]}, "finite"),
        ({"calibration": 1.0}, "shape"),
        ({"calibration": np.ones((2, 3))}, "shape"),
        ({"extreme": "both"}, "extreme"),
        ({"detected": [1]}, "bool"),
        ({"weights": [1.0]}, "both|neither"),
        ({"weights": [-1.0], "calibration_weights": [1.0, 1.0]}, "positive"),
        ({"weights": [1.0], "calibration_weights": [1.0]}, "shape"),
        ({"scores": ["a"]}, "scores must hold real numbers"),
        ({"calibration": np.ma.masked_less([1.0, 2.0], 1.5)}, "masked"),
        ({"rng": 0}, "rng"),
        ({"calibration_groups": ["a"]}, "one for each of the 2"),
        ({"calibration_groups": [0.5, 1.0]}, "whole numbers or text"),
        ({"calibration_groups": ["a", None]}, "whole numbers or text"),
        ({"calibration_groups": [0, 1], "weights": [1.0], "calibration_weights": [1.0, 1.0]}, "not both"),
    ],
)
def test_wrong_input(changes, message):
    arguments = {"scores": [1.0], "calibration": [1.0, 2.0]} | changes
    with pytest.raises(InvalidInputError, match=message):
        detection_conditional(**arguments)


@pytest.mark.parametrize("noise", ["student", "mixture"])
def test_valid_where_the_gaussian_test_is_not(noise):
    # 4,000 detections of normals with 50 calibration scores each: P(rate > 0.05 + 0.012) < 3e-4 if p is exact.
    # docs/figures/conformal_noise.py has more trials and the figure.
    rng = np.random.default_rng(7)
    draw = {
        "student": lambda shape: rng.standard_t(3, shape) / np.sqrt(3),
        "mixture": lambda shape: rng.normal(size=shape) * np.where(rng.random(shape) < 0.1, 3, 0.25),
    }[noise]
    x = np.abs(draw((4000, 51)))
    found = x > 1.5
    tested = found[:, 0]
    result = detection_conditional(x[:, 0], x[:, 1:], detected=tested, calibration_detected=found[:, 1:])
    assert np.mean(result.p_value[tested] <= 0.05) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / tested.sum())
    everywhere = unconditional(x[:, 0], x[:, 1:], detected=tested, calibration_detected=found[:, 1:])
    assert np.mean(everywhere.p_value <= 0.05) <= 0.05 + 0.014


def test_agrees_with_nonconform():
    scoring = pytest.importorskip("nonconform.scoring", reason="nonconform is not installed (needs Python 3.12)")
    # The example of the docstring of its estimator, and the weights of a covariate shift.
    calibration, scores = np.array([0.2, 0.5, 0.7, 1.1, 1.4]), np.array([0.6, 1.5])
    ours = detection_conditional(scores, calibration).p_value
    np.testing.assert_array_equal(ours, scoring.Empirical().compute_p_values(scores, calibration))
    rng = np.random.default_rng(0)
    calibration, scores = rng.integers(0, 30, 200).astype(float), rng.integers(0, 40, 50).astype(float)
    ours = detection_conditional(scores, calibration).p_value
    np.testing.assert_array_equal(ours, scoring.Empirical().compute_p_values(scores, calibration))
    weights = rng.random(50), rng.random(200)
    ours = detection_conditional(scores, calibration, weights=weights[0], calibration_weights=weights[1]).p_value
    theirs = scoring.Empirical().compute_p_values(scores, calibration, weights=weights[::-1])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    theirs = scoring.Empirical(tie_break="randomized")
    theirs.set_seed(3)
    ours = detection_conditional(scores, calibration, rng=np.random.default_rng(3)).p_value
    np.testing.assert_allclose(ours, theirs.compute_p_values(scores, calibration), rtol=1e-12)


def test_agrees_with_nonconform_on_its_example_of_discovery():
    nonconform = pytest.importorskip("nonconform", reason="nonconform is not installed (needs Python 3.12)")
    forest = pytest.importorskip("sklearn.ensemble").IsolationForest
    # The quick start of its README (2.0.0).
    rng = np.random.default_rng(42)
    x_train = rng.normal(size=(3_000, 2))
    x_test = np.vstack([rng.normal(size=(200, 2)), rng.normal(loc=5.0, size=(20, 2))])
    detector = nonconform.ConformalDetector(
        detector=forest(random_state=42), strategy=nonconform.Split(n_calib=1_000), seed=42
    ).fit(x_train)
    discoveries = detector.select(x_test, alpha=0.05)
    result = detector.last_result
    ours = detection_conditional(result.test_scores, result.calib_scores)
    np.testing.assert_array_equal(ours.p_value, result.p_values)
    np.testing.assert_array_equal(benjamini_hochberg(ours.p_value) <= 0.05, discoveries)
