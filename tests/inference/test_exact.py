"""The search against closed forms, and on a network against brute force."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sigad.errors import InvalidInputError, NumericalError
from sigad.inference import region as rg
from sigad.inference.exact import search
from sigad.inference.truncated import truncated_pvalue
from sigad.line import Restriction, agreement

REGION = np.array([[-6.0, -2.5], [-1.0, -0.75], [0.5, 2.25], [3.0, 3.0 + 1e-6], [4.0, 30.0]])


def selection(region, log=None):
    def select(windows):
        if log is not None:
            log.extend(tuple(window) for window in windows)
        return rg.intersection(region, windows), max(1, int(100 * rg.length(windows)))

    return select


@pytest.mark.parametrize("alternative", ["two-sided", "equal-tailed", "greater", "less"])
@pytest.mark.parametrize(("statistic", "null"), [(0.7, "normal"), (-3.0, "normal"), (4.5, "normal"), (2.0, ("chi", 5))])
def test_bounds_bracket_the_exact_p_value(statistic, null, alternative):
    exact = float(truncated_pvalue(statistic, REGION, null=null, alternative=alternative))
    result = search(selection(REGION), statistic, null=null, alternative=alternative)
    assert result.p_low <= exact * (1 + 1e-12) and exact <= result.p_high * (1 + 1e-12)
    assert result.p_low <= result.p_value * (1 + 1e-12) and result.p_value <= result.p_high * (1 + 1e-12)
    assert result.p_high - result.p_low <= max(1e-6, 0.01 * result.p_high)
    full = search(selection(REGION), statistic, null=null, alternative=alternative, exhaustive=True)
    assert full.p_value == pytest.approx(exact, rel=1e-6)
    assert full.n_pieces >= result.n_pieces
    inside = rg.intersection(REGION, [list(full.searched)])
    np.testing.assert_array_equal(full.region, inside)


def test_small_p_values_keep_their_relative_precision():
    region = np.array([[-20.0, 20.0]])
    result = search(selection(region), 7.0, atol=0.0)
    assert result.p_value == pytest.approx(2.559625087771669e-12, rel=0.01)
    assert result.p_high - result.p_low <= 0.01 * result.p_high


def test_windows_are_adjacent_and_searched_once():
    log = []
    result = search(selection(REGION, log), 0.7, exhaustive=True)
    log.sort()
    assert all(a[1] == b[0] for a, b in itertools.pairwise(log))
    assert result.searched == (log[0][0], log[-1][1])


def test_early_stop_searches_less():
    log, everything = [], []
    search(selection(np.array([[0.0, 3.0]]), log), 2.0)
    search(selection(np.array([[0.0, 3.0]]), everything), 2.0, exhaustive=True)
    assert sum(b - a for a, b in log) < sum(b - a for a, b in everything)


def test_a_window_may_be_given():
    result = search(selection(REGION), 0.7, window=(-1.5, 2.0), exhaustive=True)
    assert result.searched == (-1.5, 2.0)
    assert result.p_low <= result.p_value < result.p_high - 0.01  # the tails are unknown, and the bounds say so
    with pytest.raises(InvalidInputError):
        search(selection(REGION), 3.0, window=(-1.5, 2.0))


def test_a_window_that_does_not_suffice_is_searched_to_its_ends():
    """Bounds never close in, as the tails beyond are unknown; rounding must not keep the search from ending."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        window = (0.7 - rng.exponential(), 0.7 + rng.exponential())
        result = search(selection(REGION), 0.7, window=window, atol=0.0, rtol=1e-12)
        assert result.searched == window
        np.testing.assert_array_equal(result.region, rg.intersection(REGION, [list(window)]))


def test_a_selection_without_the_statistic_is_an_error():
    with pytest.raises(NumericalError, match="observed selection"):
        search(selection(REGION), 0.0)


def test_polish_moves_end_points_and_repairs_components():
    rough = REGION + np.array([[1e-5, -1e-5], [3e-6, 0.0], [1e-4, 2e-5], [0.0, 1e-6], [1e-5, 0.0]])
    result = search(selection(rough), 0.7, exhaustive=True, polish=selection(REGION))
    np.testing.assert_allclose(result.region, rg.intersection(REGION, [list(result.searched)]), rtol=0, atol=1e-15)
    spurious = rg.union(REGION, [[3.5, 3.5 + 1e-7]])
    result = search(selection(spurious), 0.7, exhaustive=True, polish=selection(REGION))
    np.testing.assert_allclose(result.region, rg.intersection(REGION, [list(result.searched)]), rtol=0, atol=1e-15)
    with pytest.raises(NumericalError, match="float64"):
        search(selection(REGION[2:3]), 0.7, polish=lambda windows: (windows, 1))


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

    def select(dtype, budget=2**30):
        line = Restriction(net, x - statistic * direction, direction, dtype=dtype, memory_budget=budget)

        def run(windows):
            parts = list(line.chunks(*windows))
            return rg.union(*(agreement(f, level, observed) for f in parts)), sum(f.pieces for f in parts)

        return run

    exact = search(select(torch.float64), statistic, exhaustive=True)
    assert len(exact.region) == 3

    # Brute force: a dense grid, then bisection of each change.
    def agrees(t):
        with torch.no_grad():
            batch = torch.as_tensor(np.atleast_1d(t))[:, None, None, None]
            scores = net(x[None] + (batch - statistic) * direction[None])
            return ((scores > level) == observed).flatten(1).all(1).numpy()

    low, high = exact.searched
    grid = np.linspace(low, high, 40001)
    flags = agrees(grid)
    ends = []
    for i in np.flatnonzero(flags[1:] != flags[:-1]):
        a, b = grid[i], grid[i + 1]
        for _ in range(60):
            middle = (a + b) / 2
            a, b = (middle, b) if agrees(middle)[0] == flags[i] else (a, middle)
        ends.append(b)
    np.testing.assert_allclose(exact.region.ravel()[: len(ends)], ends, rtol=0, atol=1e-9)
    assert exact.region.size == len(ends)

    # Single precision with polishing gives the same end points; without, nearly.
    polished = search(select(torch.float32), statistic, exhaustive=True, polish=select(torch.float64))
    np.testing.assert_allclose(polished.region, exact.region, rtol=0, atol=1e-9)
    rough = search(select(torch.float32), statistic, exhaustive=True)
    np.testing.assert_allclose(rough.region, exact.region, rtol=0, atol=1e-4)
    # A tiny memory budget cuts windows into more chunks, and changes nothing.
    small = search(select(torch.float64, budget=400_000), statistic, exhaustive=True)
    np.testing.assert_allclose(small.region, exact.region, rtol=0, atol=1e-12)
