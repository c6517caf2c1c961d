"""The lattice engine against brute force, exactly on each lattice and in simulation."""

import itertools
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sigad.errors import InvalidInputError, NumericalError
from sigad.inference import region as rg
from sigad.inference.hypothesis import Hypothesis
from sigad.inference.lattice import Interrupted, Refinement, lattice
from sigad.inference.points import Points
from sigad.inference.result import Tolerance
from sigad.inference.truncated import log_density, mean_confidence_interval, support, truncated_pvalue, unit

NULLS = ["normal", ("chi", 1), ("chi", 7), ("beta", 2.5, 4.0, 5.0), ("signed-beta", 3.0, 4.0)]
ALTERNATIVES = ["two-sided", "equal-tailed", "greater", "less"]
EXACT = Tolerance(0.0, 0.0)


@dataclass
class Intervals(Hypothesis):
    """A truncation set that is known."""

    statistic: float
    region: np.ndarray
    null: object = "normal"
    asked: int = 0

    def same(self, z):
        self.asked += len(z)
        return rg.contains(self.region, z)


def random_region(rng, null, m):
    """m intervals, narrow and wide, where the null has its mass."""
    low, high = np.maximum(support(null), (-5.0 if support(null)[0] < 0 else 0.0, -np.inf))
    return rg.as_region(np.sort(rng.uniform(low, min(high, 5.0), 2 * m)).reshape(m, 2))


def weights_on(z, region, null):
    inside = rg.contains(region, z)
    return np.where(inside, np.exp(log_density(z, null)), 0.0)


@given(st.integers(0, 10**6), st.sampled_from(NULLS), st.sampled_from(ALTERNATIVES), st.sampled_from([None, 1.5]))
@settings(max_examples=60, deadline=None)
def test_p_value_is_the_ratio_of_sums(seed, null, alternative, cell):
    rng = np.random.default_rng(seed)
    region, spacing = random_region(rng, null, 4), rng.uniform(0.05, 0.6)
    h, cell_z = spacing * unit(null), cell and cell * unit(null)
    t = rng.uniform(*region[rng.integers(len(region))])
    z = t + h * np.arange(-np.ceil(60 / h), np.ceil(60 / h) + 1)
    z = z[np.floor(z / cell_z) == np.floor(t / cell_z)] if cell else z
    w, own = weights_on(z, region, null), np.exp(log_density(t, null))
    right, left, both = (w[s].sum() for s in (z > t + h / 2, z < t - h / 2, np.abs(z) > abs(t)))
    # Floating point: T + h - h need not be T, so that its own weight is added here.
    both -= own if abs(z[np.argmin(abs(z - t))]) > abs(t) else 0.0
    right, left, both = (part + own for part in (right, left, both))
    expected = {"greater": right, "less": left, "two-sided": both, "equal-tailed": 2 * min(left, right)}
    result = lattice(
        Intervals(t, region, null), spacing=spacing, cell=cell, alternative=alternative, tolerance=EXACT, batch=17
    )
    assert result.p_low == pytest.approx(result.p_high, rel=1e-11)
    assert result.p_value == pytest.approx(min(1.0, expected[alternative] / w.sum()), rel=1e-9)
    if result.p_value < 1:  # p = 1 may be known before all points are
        assert result.own_weight == pytest.approx(own / w.sum(), rel=1e-9)
        np.testing.assert_allclose(result.region[:, 0], z[w > 0], atol=1e-12)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("refinement", [None, Refinement(3, 4)])
@pytest.mark.parametrize("cell", [None, 2.0])
@pytest.mark.parametrize("null", ["normal", ("chi", 3)])
def test_super_uniform_on_every_lattice(null, cell, refinement, alternative):
    """No simulation: all points of a lattice, each in turn the observed one. Among those that share what is conditioned
    on (the final lattice, the cell), the p-value is at most alpha with a probability of at most alpha."""
    rng = np.random.default_rng(7)
    for _ in range(6):
        region, h, offset = random_region(rng, null, 3), 0.4, rng.uniform()
        finest = h / (2**refinement.levels if refinement else 1)
        z = (offset + np.arange(-14 / finest, 14 / finest)) * finest
        z = z[rg.contains(region, z)]
        found = [
            lattice(
                Intervals(t, region, null),
                spacing=h,
                cell=cell,
                refinement=refinement,
                alternative=alternative,
                tolerance=EXACT,
            )
            for t in z
        ]
        # What a p-value was conditioned on: the points that its statistic could have been.
        groups = {}
        for i, result in enumerate(found):
            groups.setdefault(tuple(np.round(result.region[:, 0], 9)), []).append(i)
        for points, members in groups.items():
            # Each of these points ends with the same set: what T could have been does not depend on which it is.
            assert len(points) == len(members)
            w = np.exp(log_density(z[members], null))
            p = np.array([found[i].p_value for i in members])
            for level in p:
                assert w[p <= level].sum() / w.sum() <= level * (1 + 1e-9)


@pytest.mark.parametrize("refinement", [None, Refinement(2, 4)])
@pytest.mark.parametrize("cell", [None, 1.0])
def test_super_uniform_on_every_lattice_where_the_scale_is_estimated(cell, refinement):
    """As above. Given r^2 + SS = 1 the effect is r with r^2 ~ Beta(1/2, df/2), and its standard error is known to be
    ((1 - r^2) / df)^(1/2): each point of a lattice measures the line in units of its own."""
    rng, df = np.random.default_rng(8), 3
    for _ in range(6):
        region, h, offset = rg.as_region(np.sort(rng.uniform(-1, 1, 6)).reshape(3, 2)), 0.4, rng.uniform()
        finest = h / df**0.5 / (2**refinement.levels if refinement else 1)
        r = (offset + np.arange(-1 / finest - 1, 1 / finest)) * finest
        r = r[rg.contains(region, r) & (np.abs(r) < 1)]
        groups, p = {}, np.empty(len(r))
        for i, effect in enumerate(r):
            error = np.sqrt((1 - effect**2) / df)
            null = ("signed-beta", df / 2, 1 / error)
            trial = Intervals(effect / error, region / error, null)
            found = lattice(trial, spacing=h, cell=cell, refinement=refinement, tolerance=EXACT)
            groups.setdefault(tuple(np.round(found.region[:, 0] * error, 9)), []).append(i)
            p[i] = found.p_value
        for points, members in groups.items():
            assert len(points) == len(members)
            w = np.exp(log_density(r[members], ("signed-beta", df / 2, 1.0)))
            for level in p[members]:
                assert w[p[members] <= level].sum() / w.sum() <= level * (1 + 1e-9)


@pytest.mark.parametrize(
    ("alternative", "refinement"),
    [*((alternative, None) for alternative in ALTERNATIVES), ("two-sided", Refinement(2, 5))],
)
def test_simulated(alternative, refinement):
    """Draws from the truncated law: conservative p-values are super-uniform, randomised ones uniform.

    Error probability of the test: below 1e-3 each, by seeds that are fixed.
    """
    rng = np.random.default_rng(3)
    region = np.array([[-2.2, -2.0], [-0.6, 0.3], [0.35, 0.5], [1.9, 2.6]])
    draws = rng.standard_normal(20_000)
    draws = draws[rg.contains(region, draws)][:1000]
    assert len(draws) == 1000
    options = {"spacing": 0.3, "alternative": alternative, "tolerance": EXACT, "refinement": refinement}
    p = np.array([lattice(Intervals(t, region), **options).p_value for t in draws])
    u = np.array([lattice(Intervals(t, region), rng=rng, **options).p_value for t in draws])
    for alpha in (0.05, 0.1, 0.2, 0.5):
        assert (p <= alpha).sum() <= stats.binom.ppf(1 - 1e-4, len(p), alpha)
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert (u <= p).all() and p.mean() > 0.5


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("null", NULLS)
def test_a_fine_lattice_gives_the_p_value_of_the_interval_test(null, alternative):
    rng = np.random.default_rng(11)
    for _ in range(5):
        region = random_region(rng, null, 3)
        t = rng.uniform(*region[0])
        found = lattice(Intervals(t, region, null), spacing=2e-4, alternative=alternative, tolerance=EXACT, batch=10**6)
        assert found.p_value == pytest.approx(
            float(truncated_pvalue(t, region, null=null, alternative=alternative)), abs=2e-3
        )


@given(st.integers(0, 10**6), st.sampled_from(["normal", ("chi", 4)]), st.sampled_from(ALTERNATIVES))
@settings(max_examples=40, deadline=None)
def test_bounds_hold_after_every_batch(seed, null, alternative):
    rng = np.random.default_rng(seed)
    region = random_region(rng, null, 3)
    t, h = rng.uniform(*region[0]), 0.1
    full = lattice(Intervals(t, region, null), spacing=h, alternative=alternative, tolerance=EXACT)
    for tolerance in (0.5, 0.1, 1e-3):
        part = lattice(Intervals(t, region, null), spacing=h, alternative=alternative, tolerance=tolerance, batch=5)
        assert part.p_high - part.p_low <= tolerance and part.p_value == part.p_high  # valid however early it stops
        assert part.p_low * (1 - 1e-9) <= full.p_value <= part.p_high * (1 + 1e-9)
        assert part.n_evaluations <= full.n_evaluations


@pytest.mark.parametrize("t", [0.1, 9.0, 38.0, -38.0])
def test_far_out(t):
    """Against sums in many digits; the statistic far out in the tail, and its truncation set near it and near 0."""
    h, region = 0.125, np.array([[-40.0, -37.0], [-0.2, 0.2], [8.8, 9.3], [37.5, np.inf]])
    found = lattice(Intervals(t, region), spacing=h, alternative="greater", tolerance=Tolerance(0.0, 1e-9))
    with mpmath.workdps(60):
        z = [mpmath.mpf(t) + h * i for i in range(-700, 700)]
        w = [mpmath.exp(-(x**2) / 2) if rg.contains(region, float(x)) else mpmath.mpf(0) for x in z]
        expected = sum(v for x, v in zip(z, w, strict=True) if x >= t) / sum(w)
    assert 0 < found.p_value < 1 or t == -38.0
    assert abs(found.p_value / expected - 1) < 1e-8


def test_nothing_is_evaluated_twice_but_what_is_repeated():
    """The repeated ones are the observed point and two next to which the answer changes."""
    hypothesis = Intervals(0.4, np.array([[0.0, 1.0], [2.0, 3.0]]))
    for refinement in (None, Refinement(3, 40)):
        hypothesis.asked = 0
        found = lattice(hypothesis, spacing=0.1, refinement=refinement, batch=7)
        assert hypothesis.asked == found.n_evaluations
        lattice_points = 2 * 4.1 / 0.1 * (1 if refinement is None else 8)
        assert found.n_evaluations < lattice_points + 2 * 7 + 3


def test_a_cell_ends_where_the_next_one_begins():
    for t in (-2.0, -1.25, -1.0, -0.5, 0.0, 0.75):
        found = lattice(Intervals(t, np.array([[-3.0, 3.0]])), spacing=0.25, cell=1.0, tolerance=EXACT)
        np.testing.assert_array_equal(found.region[:, 0], np.floor(t) + np.array([0.0, 0.25, 0.5, 0.75]))


def test_a_point_on_the_other_side_that_is_as_extreme_counts():
    w, w0 = np.exp(log_density(np.array([0.5, 0.0]), "normal"))
    for t in (0.5, -0.5):
        found = lattice(Intervals(t, np.array([[-0.6, 0.6]])), spacing=0.5, tolerance=EXACT)
        assert found.p_value == pytest.approx(2 * w / (2 * w + w0), rel=1e-9)


@pytest.mark.parametrize("mean", [0.0, 3.0, -3.0, 7.0, 9.0])
def test_all_that_is_further_out_weighs_no_more_than_is_said(mean):
    points = Points.of(0.3, "normal", 0.01)
    low, *_, high = points.log_weights(mean)
    for bound, end, step in ((low, points.z[1], -0.01), (high, points.z[-2], 0.01)):
        beyond = np.logaddexp.reduce(log_density(end + step * np.arange(1, 5000) - mean, "normal"))
        assert bound >= beyond - 1e-9
        assert abs(mean) > 3 or bound <= beyond + 0.1


def test_refinement_goes_no_further_than_needed():
    region = np.array([[-1.0, 1.0]])
    assert lattice(Intervals(0.3, region), spacing=0.5, refinement=Refinement(6, 30)).points.spacing == 0.5 / 2**3
    assert lattice(Intervals(0.3, region), spacing=0.5, refinement=Refinement(2, 30)).points.spacing == 0.5 / 2**2
    assert lattice(Intervals(0.3, region), spacing=0.05, refinement=Refinement(2, 30)).points.spacing == 0.05


def test_refinement_counts_the_same_points_wherever_the_statistic_is():
    """Far out, where T has next to no probability to be, lie the points that make it stop."""
    region = rg.as_region([[-0.05, 0.05], [0.9, 1.1], [8.5, 11.0]])
    found = [
        lattice(Intervals(t, region), spacing=0.25, refinement=Refinement(3, 8), tolerance=EXACT)
        for t in (0.0, 1.0, 9.0, 10.75)
    ]
    assert len({result.points.spacing for result in found}) == 1 and found[0].points.spacing == 0.25
    for side in (1, -1):  # so far out that from the other ones they are not even looked at
        region = rg.as_region(np.sort(side * np.array([[-0.05, 0.05], [0.9, 1.1], [17.0, 19.0]]), axis=1))
        for t in (0.0, side * 1.0, side * 18.0):
            found = lattice(Intervals(t, region), spacing=0.25, refinement=Refinement(3, 8), tolerance=EXACT)
            assert found.points.spacing == 0.25 / 2**3


def test_refinement_leaves_out_points_that_would_have_stopped_earlier():
    """On T's lattice lies one point of Z, on the other half many: the other half is no part of the law."""
    region = rg.as_region([[i - 0.1 + 0.5, i + 0.1 + 0.5] for i in range(-6, 6)] + [[0.9, 1.1]])
    found = lattice(Intervals(1.0, region), spacing=1.0, refinement=Refinement(1, 5), tolerance=EXACT)
    assert found.p_value == 1.0 and found.n_points == 1
    other = lattice(Intervals(0.5, region), spacing=1.0, refinement=Refinement(1, 5), tolerance=EXACT)
    assert other.points.spacing == 1.0 and other.n_points == 12


def test_confidence_interval_inverts_the_conservative_test():
    region, t, h = np.array([[-1.0, -0.4], [0.2, 2.5]]), 1.1037, 0.05
    low, high = lattice(Intervals(t, region), spacing=h, tolerance=EXACT).confidence_interval(0.9)
    for mean, inside in ((low - 1e-6, False), (low + 1e-6, True), (high - 1e-6, True), (high + 1e-6, False)):
        shifted = lattice(Intervals(t - mean, region - mean), spacing=h, alternative="equal-tailed", tolerance=EXACT)
        assert (shifted.p_value > 0.1) == inside
    fine = lattice(Intervals(t, region), spacing=5e-4, tolerance=EXACT, batch=10**6).confidence_interval(0.9)
    np.testing.assert_allclose(fine, mean_confidence_interval(t, region, level=0.9), atol=0.02)


def test_confidence_interval_covers_and_widens_with_what_is_unknown():
    rng, region, mean = np.random.default_rng(5), np.array([[0.5, 1.2], [1.5, 9.0]]), 0.8
    draws = mean + rng.standard_normal(1500)
    covered, total = 0, 0
    for t in draws[rg.contains(region, draws)]:
        searches = [lattice(Intervals(t, region), spacing=0.2, tolerance=tol, batch=20) for tol in (0.0, 0.3)]
        (low, high), (lower, higher) = (search.confidence_interval(0.9) for search in searches)
        assert lower <= low + 1e-8 and high <= higher + 1e-8
        covered, total = covered + (low <= mean <= high), total + 1
    # Conservative; rejected with probability below 1e-4 where coverage is 0.9.
    assert covered >= stats.binom.ppf(1e-4, total, 0.9)


def test_confidence_interval_needs_a_normal_statistic():
    found = lattice(Intervals(1.0, np.array([[0.0, 3.0]]), ("chi", 3)), spacing=0.1)
    with pytest.raises(InvalidInputError, match="normal"):
        found.confidence_interval()


def besag_clifford(hypothesis, rng, draws, step=0.7):
    """Rank of T among states of a Markov chain that leaves the truncated law unchanged, started on both sides of it
    (Besag & Clifford 1989, serial method): exactly uniform over its m values."""

    def chain(z, n):
        states = []
        for _ in range(n):
            proposal = z + step * rng.standard_normal()
            accept = np.log(rng.uniform()) < 0.5 * (z**2 - proposal**2)
            z = proposal if accept and hypothesis.same(np.array([proposal]))[0] else z
            states.append(z)
        return states

    before = int(rng.integers(draws))
    states = np.array(chain(hypothesis.statistic, before) + chain(hypothesis.statistic, draws - 1 - before))
    above, tied = (states > hypothesis.statistic).sum(), (states == hypothesis.statistic).sum()
    return (above + rng.uniform() * (1 + tied)) / draws


def harrison(hypothesis, rng, draws):
    """Importance sampling with a proposal that does not depend on T, and T among the draws (Harrison 2012, Biometrika,
    p-tilde): valid for any number of draws."""
    z = np.append(rng.uniform(-5, 5, draws), hypothesis.statistic)
    w = np.where(hypothesis.same(z), stats.norm.pdf(z), 0.0)
    return w[z >= hypothesis.statistic].sum() / w.sum()


def test_other_exact_tests_of_the_same_hypotheses_agree():
    """Besag and Clifford's chains and Harrison's importance sampling: uniform p-values too, close to the lattice's.

    Seeds are fixed; each check has an error probability below 1e-3.
    """
    rng = np.random.default_rng(8)
    region = np.array([[-1.4, -0.7], [-0.2, 0.1], [0.6, 2.4]])
    draws = rng.standard_normal(3000)
    draws = draws[rg.contains(region, draws)][:800]
    mine, chains, sampled = [], [], []
    for t in draws:
        hypothesis = Intervals(t, region)
        mine.append(lattice(hypothesis, spacing=0.05, alternative="greater", rng=rng).p_value)
        chains.append(besag_clifford(hypothesis, rng, 100))
        sampled.append(harrison(hypothesis, rng, 400))
    for p in (mine, chains, sampled):
        assert stats.kstest(p, "uniform").pvalue > 1e-3
    for a, b in itertools.combinations((mine, chains, sampled), 2):
        assert stats.ks_2samp(a, b).pvalue > 1e-3
    assert np.abs(np.subtract(mine, sampled)).mean() < 0.05
    assert np.corrcoef(mine, chains)[0, 1] > 0.8


class Random(Intervals):
    def same(self, z):
        return np.random.default_rng(len(z)).uniform(size=len(z)) < 0.5


class OfTheBatch(Intervals):
    """Compares with the mean of the batch."""

    def same(self, z):
        return np.abs(z - z.mean()) < 1.0


class Numbers(Intervals):
    def same(self, z):
        return rg.contains(self.region, z).astype(float)


def test_detectors_that_cannot_be_conditioned_on():
    region = np.array([[-1.0, 2.0]])
    with pytest.raises(NumericalError, match="deterministic"):
        lattice(Intervals(3.0, region), spacing=0.1)
    with pytest.raises(NumericalError, match=r"in a batch|alone"):
        lattice(Random(1.0, region), spacing=0.1)
    with pytest.raises(NumericalError, match="alone"):
        lattice(OfTheBatch(0.5, region), spacing=0.1)
    with pytest.raises(InvalidInputError, match="one bool"):
        lattice(Numbers(1.0, region), spacing=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"spacing": 0.0},
        {"spacing": np.nan},
        {"spacing": 1e-9},
        {"spacing": 0.1, "cell": -1.0},
        {"spacing": 0.1, "alternative": "both"},
        {"spacing": 0.1, "batch": 0},
        {"spacing": 0.1, "refinement": Refinement(0)},
        {"spacing": 0.1, "refinement": Refinement(2, 0)},
    ],
)
def test_bad_arguments(options):
    with pytest.raises(InvalidInputError):
        lattice(Intervals(1.0, np.array([[0.0, 3.0]])), **options)


class Slow(Intervals):
    """The user interrupts during the third batch."""

    def same(self, z):
        if self.asked > 100:
            raise KeyboardInterrupt
        return super().same(z)


@pytest.mark.parametrize("refinement", [None, Refinement(1, 10**6)])
def test_an_interrupted_evaluation_knows_its_bounds(refinement):
    region = np.array([[-1.0, 2.0]])
    full = lattice(Intervals(1.5, region), spacing=0.01, refinement=refinement, tolerance=EXACT)
    with pytest.raises(Interrupted, match="known to lie in") as stop:
        lattice(Slow(1.5, region), spacing=0.01, refinement=refinement, batch=60)
    part = stop.value.result
    assert isinstance(stop.value, KeyboardInterrupt)
    assert part.p_low <= full.p_value <= part.p_high and part.n_evaluations == 120
    assert refinement is not None or part.p_high < 1
