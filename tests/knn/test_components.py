"""Transforms of columns, against scipy."""

import numpy as np
import pytest
from scipy import stats

from sigad.knn.components import _likeliest_power, _yeo_johnson


@pytest.mark.parametrize("shape", ["normal", "lognormal", "uniform", "standard_cauchy", "beta"])
def test_transform_and_its_power_are_those_of_scipy(shape):
    rng = np.random.default_rng(3)
    draw = (lambda size: rng.beta(0.5, 3.0, size)) if shape == "beta" else lambda size: getattr(rng, shape)(size=size)
    values = draw((60, 5))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    power = _likeliest_power(values)
    for column, own in zip(values.T, power, strict=True):
        best = stats.yeojohnson_normmax(column)
        assert own == pytest.approx(best, abs=1e-4)
        assert stats.yeojohnson_llf(own, column) >= stats.yeojohnson_llf(best, column) - 1e-9
    exponents = np.array([-1.5, 0.0, 1.0, 2.0, 3.5])
    for p, column, own in zip(exponents, values.T, _yeo_johnson(values, exponents).T, strict=True):
        np.testing.assert_allclose(own, stats.yeojohnson(column, p), rtol=1e-10, atol=1e-12)
