"""A few seeds of each fuzzer."""

import pytest

from tests.fuzz import AGREES, Report, attempt, fuzzer, load, run

SEEDS = 25


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in sorted(load()) if name.startswith("line")])
def test_nothing_is_wrong(name):
    report = Report()
    for seed in range(SEEDS):
        attempt(name, seed, report)
    assert not report.wrong, str(report)
    assert report.outcomes[AGREES] >= SEEDS // 2, str(report)  # what is refused is not tested


def test_a_report_counts_and_names_the_seed(monkeypatch):
    monkeypatch.setattr("tests.fuzz.FUZZERS", {})

    @fuzzer("even")
    def even(seed):
        if seed % 4 == 0:
            return "a multiple of four"
        assert seed % 2 == 0, f"{seed} is odd"
        return AGREES

    shown = []
    monkeypatch.setattr("tests.fuzz.FUZZERS", {"even": even})
    report = run(["even"], 0.5, 0, shown.append)["even"]
    assert report.outcomes["a multiple of four"] >= 1 and report.outcomes[AGREES] >= 1 and 1 in report.wrong
    assert "AssertionError: 1 is odd" in report.wrong[1] and "seed 1" in shown[0] and "seed 3" in str(report)
