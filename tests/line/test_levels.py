"""Roots and level sets against dense evaluation."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from sigad.errors import InvalidInputError, NumericalError
from sigad.inference import region as rg
from sigad.line import LineFunction, above, agreement, restrict, roots


def function(points, values) -> LineFunction:
    return LineFunction(torch.tensor(points, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))


# Small integers make exact zeros, flat pieces, ties and roots in breakpoints common.
values = hnp.arrays(np.float64, st.tuples(st.integers(2, 7), st.integers(1, 3)), elements=st.integers(-2, 2).map(float))


@settings(max_examples=200, deadline=None)
@given(values, st.sampled_from([0.0, 0.5, -1.0]))
def test_level_sets_roots_and_agreement(numbers, level):
    f = function(np.arange(len(numbers)), numbers)
    t = np.linspace(0, len(numbers) - 1, 30 * (len(numbers) - 1) + 1) + 1e-6
    t = t[t < len(numbers) - 1]
    dense = f(t).numpy()
    output, intervals = above(f, level)
    assert (intervals[:, 0] < intervals[:, 1]).all() and (np.diff(output) >= 0).all()
    for i in range(numbers.shape[1]):
        np.testing.assert_array_equal(rg.contains(intervals[output == i], t), dense[:, i] > level)
        np.testing.assert_array_equal(rg.as_region(intervals[output == i]).shape, intervals[output == i].shape)
    where, position = roots(f, level)
    for i in range(numbers.shape[1]):
        mine = position[where == i]
        assert (np.diff(mine) > 0).all()
        np.testing.assert_allclose(f(mine).numpy()[:, i], level, atol=1e-12)
        side = np.sign(f(np.arange(len(numbers))).numpy()[:, i] - level)
        assert len(mine) >= (side[1:] * side[:-1] < 0).sum() + (side == 0).sum()
    for start in (0, len(t) // 2):
        observed = torch.from_numpy(dense[start] > level)
        found = agreement(f, level, observed)
        np.testing.assert_array_equal(rg.contains(found, t), ((dense > level) == (dense[start] > level)).all(1))
        assert found.shape == rg.as_region(found).shape


def test_zero_slope_on_the_level():
    f = function([0.0, 1.0, 2.0, 3.0], [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    output, t = roots(f)
    assert output.tolist() == [0, 0, 1, 1, 1, 1] and t.tolist() == [1.0, 2.0, 0.0, 1.0, 2.0, 3.0]
    output, intervals = above(f)
    assert output.tolist() == [0] and intervals.tolist() == [[0.0, 1.0]]
    assert agreement(f, 0.0, torch.tensor([False, False])).tolist() == [[1.0, 3.0]]
    assert agreement(f, 0.0, torch.tensor([False, True])).shape == (0, 2)


def test_a_peak_that_is_narrower_than_rounding_is_no_interval():
    f = function([1e6, 1e6 + 1, 1e6 + 2], [[0.0, 2.0], [1.0 + 2**-52, 2.0], [0.0, 0.0]])
    output, intervals = above(f, 1.0)
    assert output.tolist() == [1] and intervals.tolist() == [[1e6, 1e6 + 1.5]]


def test_levels_per_output_keep_their_order_in_any_layout():
    points = torch.linspace(-1, 1, 5, dtype=torch.float64)
    values_ = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    level = torch.linspace(-0.5, 0.5, 48, dtype=torch.float64).reshape(3, 4, 4)
    plain = LineFunction(points, values_)
    other = LineFunction(points, values_.contiguous(memory_format=torch.channels_last))
    for a, b in zip(above(plain, level), above(other, level), strict=True):
        np.testing.assert_array_equal(a, b)
    observed = plain(0.1) > level
    np.testing.assert_array_equal(agreement(plain, level, observed), agreement(other, level, observed))
    assert rg.contains(agreement(plain, level, observed), 0.1)


def test_maximum_of_several():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 5)).double()
    f = restrict(net, torch.randn(2).double(), torch.randn(2).double(), (-3.0, 3.0), dtype=torch.float64)
    t = torch.linspace(-3, 3, 101, dtype=torch.float64)
    torch.testing.assert_close(f.amax(0)(t), f(t).amax(1))
    torch.testing.assert_close(torch.minimum(f[0], f[1])(t), f(t)[:, :2].amin(1))


def test_wrong_arguments():
    f = function([0.0, 1.0], [[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(InvalidInputError, match="observed"):
        agreement(f, 0.0, torch.tensor([True]))
    with pytest.raises(InvalidInputError, match="level"):
        above(f, torch.zeros(2, 1))
    with pytest.raises(InvalidInputError, match="known on"):
        f(1.5)
    for points, numbers in (([0.0, 0.0], [[1.0], [2.0]]), ([0.0], [[1.0]]), ([0.0, 1.0], [[1.0], [np.nan]])):
        with pytest.raises(InvalidInputError):
            function(points, numbers)
    with pytest.raises(InvalidInputError, match="float32 or float64"):
        LineFunction(torch.tensor([0.0, 1.0]).double(), torch.zeros(2, 1, dtype=torch.float16))


@pytest.mark.parametrize("outputs", [1, 7, 8, 16])
def test_level_sets_in_any_layout_of_memory(outputs):
    """A product of a matrix and a vector comes transposed."""
    torch.manual_seed(0)
    weight, x, direction = torch.randn(outputs, 4).double(), torch.randn(4).double(), torch.randn(4).double()
    for product in (lambda x: weight @ F.relu(x[0]), lambda x: torch.mv(weight, F.relu(x[0]))):
        f = restrict(product, x, direction, (-2.0, 2.0), dtype=torch.float64)
        plain = LineFunction(f.breakpoints, f.values.contiguous())
        observed = f(0.1) > 0.2
        for read in (above, roots, lambda f, level, observed=observed: (agreement(f, level, observed),)):
            for a, b in zip(read(f, 0.2), read(plain, 0.2), strict=True):
                np.testing.assert_array_equal(a, b)


def test_nothing_to_compare():
    """A function without numbers, of an input without numbers or of one that has some."""
    x = torch.ones(3).double()
    for f in (
        restrict(lambda x: F.relu(x)[:, 3:], x, x, (-2.0, 2.0), dtype=torch.float64),
        restrict(nn.ReLU(), x[:0], x[:0], (-2.0, 2.0), dtype=torch.float64),
        restrict(lambda x: F.relu(x).reshape(0, 3), x[:0], x[:0], (-2.0, 2.0), dtype=torch.float64),
    ):
        assert f.shape.numel() == 0
        assert [len(part) for part in above(f)] == [len(part) for part in roots(f)] == [0, 0]
        observed = torch.zeros(f.shape, dtype=torch.bool)
        assert agreement(f, 0.0, observed).tolist() == [[-2.0, 2.0]]  # nothing can disagree


def test_numbers_that_are_none():
    f = function([0.0, 1.0], [[1.0, 0.0], [0.0, 0.0]])
    observed = torch.tensor([True, False])
    for level in (float("nan"), np.nan, torch.tensor([0.0, np.nan])):
        for read in (
            lambda level: above(f, level),
            lambda level: roots(f, level),
            lambda level: agreement(f, level, observed),
        ):
            with pytest.raises(InvalidInputError, match="NaN"):
                read(level)
    assert len(above(f, np.inf)[0]) == 0 and above(f, -np.inf)[1].tolist() == [[0.0, 1.0]] * 2
    with pytest.raises(NumericalError, match="finite"):
        agreement(f / 0.0, 0.0, observed)
    with pytest.raises(InvalidInputError, match="difference"):
        above(f, f)
