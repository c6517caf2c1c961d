"""Errors say which name was meant."""

import pytest

from sigad.errors import near

KNOWN = ["fig03_power_over_signal", "fig13_power_over_k", "quantile"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("fig03_power", "fig03_power_over_signal"), ("Quantle", "quantile"), ("fig13_power_over_n", "fig13_power_over_k")],
)
def test_a_name_that_was_begun_comes_before_one_that_looks_alike(name, meant):
    assert near(name, KNOWN) == f"; did you mean {meant!r}?"


def test_nothing_is_meant_where_nothing_looks_alike():
    assert near("zzz", KNOWN) == near("", KNOWN) == ""
