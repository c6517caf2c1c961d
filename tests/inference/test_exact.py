"""The search against closed forms, and on a network against brute force."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sigad.errors import InvalidInputError, NumericalError
from sigad.inference import region as rg
from sigad.inference.exact import exact
from sigad.inference.hypothesis import Look, PiecewiseHypothesis
from sigad.inference.result import Tolerance
from sigad.inference.truncated import truncated_pvalue
from sigad.line import Restriction, agreement

REGION = np.array([[-6.0, -2.5], [-1.0, -0.75], [0.5, 2.25], [3.0, 3.0 + 1e-6], [4.0, 30.0]])


class Known(PiecewiseHypothesis):
    """A hypothesis whose truncation region is given: one for single precision, and the true one."""

    resolution = 1e-16

    def __init__(self, region, statistic, null="normal", log=None, single=None, unsure=rg.EMPTY):
        self.true, self.statistic, self.null, self.log = region, statistic, null, log
        self.single, self.unsure = region if single is None else single, unsure

    def look(self, windows, dtype):
        if self.log is not None and dtype == torch.float32:
            self.log.extend(tuple(window) for window in windows)
        region, unsure = (self.single, self.unsure) if dtype == torch.float32 else (self.true, rg.EMPTY)
        pieces = max(1, int(100 * rg.length(windows)))
        return Look(rg.intersection(region, windows), rg.intersection(unsure, windows), pieces)

    def same(self, z):
        return rg.contains(self.true, z)

    def restriction(self, dtype):
        raise NotImplementedError

    agreement = restriction


@pytest.mark.parametrize("alternative", ["two-sided", "equal-tailed", "greater", "less"])
@pytest.mark.parametrize(("statistic", "null"), [(0.7, "normal"), (-3.0, "normal"), (4.5, "normal"), (2.0, ("chi", 5))])
def test_bounds_bracket_the_exact_p_value(statistic, null, alternative):
    expected = float(truncated_pvalue(statistic, REGION, null=null, alternative=alternative))
    result = exact(Known(REGION, statistic, null), alternative=alternative)
    assert result.p_low <= expected * (1 + 1e-12) and expected <= result.p_high * (1 + 1e-12)
    assert result.p_low <= result.p_value * (1 + 1e-12) and result.p_value <= result.p_high * (1 + 1e-12)
    assert result.p_high - result.p_low <= max(1e-6, 0.01 * result.p_high)
    full = exact(Known(REGION, statistic, null), alternative=alternative, exhaustive=True)
    assert full.p_value == pytest.approx(expected, rel=1e-6)
    assert full.n_evaluations >= result.n_evaluations
    inside = rg.intersection(REGION, [list(full.searched)])
    np.testing.assert_array_equal(full.region, inside)


def test_small_p_values_keep_their_relative_precision():
    region = np.array([[-20.0, 20.0]])
    result = exact(Known(region, 7.0), tolerance=Tolerance(0.0, 0.01))
    assert result.p_value == pytest.approx(2.559625087771669e-12, rel=0.01)
    assert result.p_high - result.p_low <= 0.01 * result.p_high


def test_windows_are_adjacent_and_searched_once():
    log = []
    result = exact(Known(REGION, 0.7, log=log), exhaustive=True)
    log.sort()
    assert all(a[1] == b[0] for a, b in itertools.pairwise(log))
    assert result.searched == (log[0][0], log[-1][1])


def test_early_stop_searches_less():
    log, everything = [], []
    exact(Known(np.array([[0.0, 3.0]]), 2.0, log=log))
    exact(Known(np.array([[0.0, 3.0]]), 2.0, log=everything), exhaustive=True)
    assert sum(b - a for a, b in log) < sum(b - a for a, b in everything)


def test_a_window_may_be_given():
    result = exact(Known(REGION, 0.7), window=(-1.5, 2.0), exhaustive=True)
    assert result.searched == (-1.5, 2.0)
    assert result.p_low <= result.p_value < result.p_high - 0.01  # the tails are unknown, and the bounds say so
    with pytest.raises(InvalidInputError):
        exact(Known(REGION, 3.0), window=(-1.5, 2.0))


def test_a_window_that_does_not_suffice_is_searched_to_its_ends():
    """Bounds never close in, as the tails beyond are unknown; rounding must not keep the search from ending."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        window = (0.7 - rng.exponential(), 0.7 + rng.exponential())
        result = exact(Known(REGION, 0.7), window=window, tolerance=Tolerance(0.0, 1e-12))
        assert result.searched == window
        np.testing.assert_array_equal(result.region, rg.intersection(REGION, [list(window)]))


def test_a_selection_without_the_statistic_is_an_error():
    with pytest.raises(NumericalError, match="observed selection"):
        exact(Known(REGION, 0.0))


def test_a_selection_that_only_single_precision_sees_is_the_same_error():
    """Callers leave one problem of a batch without a p-value for a NumericalError, and for no other error."""
    single = np.array([[0.5 - 1e-6, 2.25]])
    with pytest.raises(NumericalError, match="observed selection"):
        exact(Known(REGION, 0.5 - 5e-7, single=single))


def test_polish_moves_end_points_and_repairs_components():
    rough = REGION + np.array([[1e-5, -1e-5], [3e-6, 0.0], [1e-4, 2e-5], [0.0, 1e-6], [1e-5, 0.0]])
    spurious = rg.union(REGION, [[3.5, 3.5 + 1e-7]])
    for single in (rough, spurious):
        result = exact(Known(REGION, 0.7, single=single), exhaustive=True)
        np.testing.assert_allclose(result.region, rg.intersection(REGION, [list(result.searched)]), rtol=0, atol=1e-15)


def test_what_single_precision_does_not_tell_is_looked_at_in_double():
    """A score that rests next to the threshold: no end point is near what was missed, or what is too much."""
    without = [REGION[[0, 2, 3, 4]], rg.intersection(REGION, rg.complement([[1.2, 1.9]]))]
    for single in (*without, rg.union(REGION, [[-0.75, 0.5]]), rg.union(REGION, [[-2.0, -1.5]])):
        unsure = np.array([[-2.1, -1.4], [-1.1, 0.6], [1.1, 2.0]])
        result = exact(Known(REGION, 0.7, single=single, unsure=unsure), exhaustive=True)
        np.testing.assert_allclose(result.region, rg.intersection(REGION, [list(result.searched)]), rtol=0, atol=1e-15)


def test_the_tolerance_holds_after_the_polish():
    """What single precision saw was enough to stop; what double precision leaves of it is not."""
    everything, part = np.array([[-10.0, 10.0]]), np.array([[1.9, 2.1]])
    result = exact(Known(part, 2.0, single=everything, unsure=everything))
    assert result.searched[1] > exact(Known(everything, 2.0)).searched[1]
    assert result.p_high - result.p_low <= 0.01 * result.p_high


@pytest.mark.parametrize("single", [[[0.7 + 1e-7, 2.25]], [[0.7 + 1e-4, 2.25]], [[-1.0, -0.75]], [[0.5, 0.9]]])
def test_where_single_precision_does_not_suffice_double_takes_over(single):
    """A score next to the threshold that takes the other side, however near; a component that was missed."""
    result = exact(Known(REGION, 0.7, single=np.array(single)), exhaustive=True)
    direct = exact(Known(REGION, 0.7), exhaustive=True, dtype=torch.float64)
    inside = rg.intersection(result.region, [[0.0, 2.4]])
    np.testing.assert_allclose(inside, rg.intersection(direct.region, [[0.0, 2.4]]), rtol=0, atol=1e-15)


@pytest.mark.parametrize("tolerance", [-1e-3, 1.0, np.nan, "small", (0.1, -0.1), (0.1, 0.1, 0.1), None])
def test_what_is_no_tolerance(tolerance):
    with pytest.raises(InvalidInputError, match="tolerance"):
        exact(Known(REGION, 0.7), tolerance=tolerance)


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x):
        return (self.two(F.max_pool2d(F.relu(self.one(x)), 3, 1, 1)) * 4).abs()


def test_region_of_a_network_against_brute_force():
    net = Scores().double()
    torch.manual_seed(18)  # a seed for which the region has three intervals
    x, direction = torch.randn(1, 6, 6).double()[:, :3, :3], torch.randn(1, 6, 6).double()[:, :3, :3] / 4
    statistic, level = 0.8, 1.0
    observed = net(x[None])[0] > level
    assert observed.any() and not observed.all()

    class Marked(PiecewiseHypothesis):
        null = "normal"

        def __init__(self, budget=2**30):
            self.statistic, self.budget = statistic, budget

        def same(self, z):
            return agrees(z)

        def restriction(self, dtype):
            return Restriction(net, x - statistic * direction, direction, dtype=dtype, memory_budget=self.budget)

        def agreement(self, part):
            return agreement(part, level, observed), rg.EMPTY

    found = exact(Marked(), exhaustive=True, dtype=torch.float64)
    assert len(found.region) == 3

    # Brute force: a dense grid, then bisection of each change.
    def agrees(t):
        with torch.no_grad():
            batch = torch.as_tensor(np.atleast_1d(t))[:, None, None, None]
            scores = net(x[None] + (batch - statistic) * direction[None])
            return ((scores > level) == observed).flatten(1).all(1).numpy()

    low, high = found.searched
    grid = np.linspace(low, high, 40001)
    flags = agrees(grid)
    ends = []
    for i in np.flatnonzero(flags[1:] != flags[:-1]):
        a, b = grid[i], grid[i + 1]
        for _ in range(60):
            middle = (a + b) / 2
            a, b = (middle, b) if agrees(middle)[0] == flags[i] else (a, middle)
        ends.append(b)
    np.testing.assert_allclose(found.region.ravel()[: len(ends)], ends, rtol=0, atol=1e-9)
    assert found.region.size == len(ends)

    # Single precision with polishing gives the same end points; without, nearly.
    polished = exact(Marked(), exhaustive=True)
    np.testing.assert_allclose(polished.region, found.region, rtol=0, atol=1e-9)
    rough = Marked().look(np.array([[low, high]]), torch.float32).region
    np.testing.assert_allclose(rough, found.region, rtol=0, atol=1e-4)
    # A tiny memory budget cuts windows into more chunks, and changes nothing.
    small = exact(Marked(budget=400_000), exhaustive=True, dtype=torch.float64)
    np.testing.assert_allclose(small.region, found.region, rtol=0, atol=1e-12)
    # The linear piece around the statistic ends where the scores bend.
    ((left, right),) = Marked().piece()
    assert left < statistic < right

    def scores_at(t):
        return net(x[None] + (torch.as_tensor(t)[:, None, None, None] - statistic) * direction[None]).detach().numpy()

    inner, outer = scores_at(np.linspace(left, right, 5)), scores_at(np.linspace(left - 1e-3, right + 1e-3, 5))
    np.testing.assert_allclose(np.diff(inner, 2, axis=0), 0, atol=1e-12)
    assert np.abs(np.diff(outer, 2, axis=0)).max() > 1e-6
