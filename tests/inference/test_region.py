"""Interval algebra against its meaning, point by point.

Bounds are drawn from the integers and infinity, so that equal bounds and touching intervals are common; membership is
compared at the half-integers, where no bound lies, and the canonical form fixes what happens at the bounds.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigad.errors import InvalidInputError
from sigad.inference import region as rg

BOUND = st.one_of(st.integers(-6, 6).map(float), st.sampled_from([-np.inf, np.inf]))
INTERVALS = st.lists(st.tuples(BOUND, BOUND), max_size=6)  # empty ones, lower >= upper, included
POINTS = np.arange(-7.5, 8.0)


def inside(intervals, points=POINTS):
    """How many of the intervals contain each point; nothing but the definition."""
    return np.array([sum(low < x < high for low, high in intervals) for x in points])


def array(intervals):
    return np.array(intervals, dtype=float).reshape(-1, 2)


def assert_canonical(region):
    """Sorted, disjoint, not touching, positive widths; padding only at the end and no more of it than needed."""
    flat = region.reshape(int(np.prod(region.shape[:-2])), *region.shape[-2:])
    for one in flat:
        real = one[one[:, 0] < one[:, 1]]
        assert (one[: len(real)] == real).all() and (one[len(real) :] == np.inf).all()
        assert (real[1:, 0] > real[:-1, 1]).all()
    if region.shape[-2] and len(flat):
        assert (flat[:, -1, 0] < flat[:, -1, 1]).any()


@given(INTERVALS, st.integers(1, 7))
def test_covered_at_least_counts(intervals, count):
    region = rg.covered_at_least(array(intervals), count)
    assert_canonical(region)
    np.testing.assert_array_equal(rg.contains(region, POINTS), inside(intervals) >= count)


@given(INTERVALS)
def test_as_region_is_the_union_and_idempotent(intervals):
    region = rg.as_region(intervals)
    assert_canonical(region)
    np.testing.assert_array_equal(rg.contains(region, POINTS), inside(intervals) >= 1)
    np.testing.assert_array_equal(rg.as_region(region), region)
    np.testing.assert_array_equal(rg.as_region(array(intervals)[::-1]), region)


@given(st.lists(INTERVALS, min_size=1, max_size=4))
def test_union_and_intersection(parts):
    regions = [rg.as_region(array(p)) for p in parts]
    members = [inside(p) >= 1 for p in parts]
    for result, expected in ((rg.union(*regions), np.any(members, 0)), (rg.intersection(*regions), np.all(members, 0))):
        assert_canonical(result)
        np.testing.assert_array_equal(rg.contains(result, POINTS), expected)


@given(INTERVALS)
def test_complement(intervals):
    region = rg.as_region(array(intervals))
    other = rg.complement(region)
    assert_canonical(other)
    np.testing.assert_array_equal(rg.contains(other, POINTS), inside(intervals) == 0)
    np.testing.assert_array_equal(rg.complement(other), region)
    assert rg.intersection(region, other).shape == (0, 2)
    np.testing.assert_array_equal(rg.union(region, other), rg.WHOLE_LINE)


@given(INTERVALS, INTERVALS)
def test_de_morgan(first, second):
    a, b = rg.as_region(array(first)), rg.as_region(array(second))
    np.testing.assert_array_equal(rg.complement(rg.union(a, b)), rg.intersection(rg.complement(a), rg.complement(b)))


@given(INTERVALS)
def test_length(intervals):
    bounded = [(max(low, -7.0), min(high, 7.0)) for low, high in intervals]
    # Every bound is an integer: the length is the number of unit cells inside.
    assert rg.length(rg.as_region(array(bounded))) == (inside(bounded) >= 1).sum()
    assert rg.length(rg.as_region([[0, np.inf]])) == np.inf
    assert rg.length(rg.EMPTY) == 0


@given(INTERVALS, st.integers(-7, 7))
def test_component(intervals, point):
    region = rg.as_region(array(intervals))
    part = rg.component(region, point)
    assert len(part) == int(rg.contains(region, point))
    if len(part):
        assert part[0, 0] <= point <= part[0, 1] and (region == part[0]).all(axis=-1).any()


@given(st.lists(INTERVALS, min_size=1, max_size=5), st.integers(1, 3))
def test_batch_equals_one_by_one(batch, count):
    width = max(1, *(len(b) for b in batch))
    padded = np.full((len(batch), width, 2), np.inf)
    for row, intervals in zip(padded, batch, strict=True):
        row[: len(intervals)] = array(intervals)
    regions = rg.as_region(padded)
    assert_canonical(regions)
    results = {
        "covered": (rg.covered_at_least(padded, count), lambda b: rg.covered_at_least(array(b), count)),
        "union": (regions, lambda b: rg.as_region(array(b))),
        "complement": (rg.complement(regions), lambda b: rg.complement(rg.as_region(array(b)))),
        "intersection": (
            rg.intersection(regions, rg.complement(rg.covered_at_least(padded, count))),
            lambda b: rg.intersection(rg.as_region(array(b)), rg.complement(rg.covered_at_least(array(b), count))),
        ),
    }
    for name, (together, one) in results.items():
        assert_canonical(together)
        for row, intervals in zip(together, batch, strict=True):
            np.testing.assert_array_equal(row[row[:, 0] < row[:, 1]], one(intervals), err_msg=name)
    np.testing.assert_array_equal(rg.length(regions), [rg.length(rg.as_region(array(b))) for b in batch])


def test_more_than_one_batch_dimension():
    intervals = np.array([[[[0, 1], [1, 2]], [[3, 4], [0, 5]], [[2, 2], [7, 6]]]], dtype=float)
    region = rg.as_region(intervals)
    assert region.shape == (1, 3, 1, 2)
    np.testing.assert_array_equal(region[0, :, 0], [[0, 2], [0, 5], [np.inf, np.inf]])
    np.testing.assert_array_equal(rg.contains(region, np.full((1, 3), 1.5)), [[True, True, False]])


def test_real_gaps_survive_and_touching_intervals_merge():
    tiny = np.nextafter(1.0, 2.0)
    assert len(rg.as_region([[0, 1], [tiny, 2]])) == 2
    np.testing.assert_array_equal(rg.as_region([[1, 2], [0, 1]]), [[0, 2]])
    np.testing.assert_array_equal(rg.as_region([[1.0, tiny]]), [[1.0, tiny]])
    np.testing.assert_array_equal(rg.intersection([[0, 1]], [[1, 2]]), rg.EMPTY)
    np.testing.assert_array_equal(rg.complement(rg.EMPTY), rg.WHOLE_LINE)
    np.testing.assert_array_equal(rg.complement(rg.WHOLE_LINE), rg.EMPTY)
    np.testing.assert_array_equal(rg.intersection(rg.WHOLE_LINE, [[0, np.inf]]), [[0, np.inf]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rg.as_region([[0, np.nan]]), "NaN"),
        (lambda: rg.as_region([0.0, 1.0, 2.0]), r"shape \(..., m, 2\)"),
        (lambda: rg.covered_at_least([[0, 1]], 0), "at least 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
