"""A small part of the fuzzers; python -m tests.fuzz runs them for long."""

from collections import Counter

import pytest

from tests.fuzz import knn


@pytest.mark.parametrize(("problem", "seeds"), [(knn.closed_form, 400), (knn.network, 150)])
def test_regions_are_what_the_detector_says(problem, seeds):
    became = Counter(problem(seed) for seed in range(seeds))
    assert became["agrees"] > 0.3 * seeds and became["tied"] > 0.05 * seeds
