"""The figure of valid and invalid searches: what it says is so, with fewer trials."""

import runpy
from pathlib import Path

FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "lattice_validity.py"


def test_only_the_valid_searches_are_uniform():
    """Seed fixed; a valid method fails with probability 1e-3."""
    script = runpy.run_path(str(FIGURE))
    table = script["summary"](script["simulate"](2000, seed=2))
    valid = ~table.index.str.startswith("invalid")
    assert valid.sum() == 2
    assert (table[valid]["ks_p"] > 1e-3).all()
    assert (table[~valid]["ks_p"] < 1e-5).all() and (table[~valid]["excess_p"] < 1e-3).all()
