"""Fuzzers: random problems against an oracle that shares no code with the library.

A fuzzer is a function of a seed, registered by its name. It makes a problem, and returns in a word what became of it:
"agrees" if the library is right about it; or a reason, the same for many seeds, why it had nothing to say. It raises if
the library is wrong. The tests beside it run a few seeds of each, ``python -m tests.fuzz --minutes N`` many.

    @fuzzer("lattice ties")
    def lattice_ties(seed: int) -> str:
        ...
        return "agrees"

To add fuzzers, write a module here with functions like this, and name it in ``MODULES``.
"""

import importlib
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

MODULES = ("knn", "localization", "line_networks", "line_operations")

FUZZERS: dict[str, Callable[[int], str]] = {}

AGREES = "agrees"


def fuzzer(name: str) -> Callable:
    def register(function: Callable[[int], str]) -> Callable[[int], str]:
        FUZZERS[name] = function
        return function

    return register


def load() -> dict[str, Callable[[int], str]]:
    """All fuzzers by name."""
    for module in MODULES:
        importlib.import_module(f"tests.fuzz.{module}")
    return FUZZERS


@dataclass
class Report:
    """What became of the problems of one fuzzer."""

    outcomes: Counter = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        tried = self.outcomes.total() + len(self.wrong)
        lines = [f"{tried} tried: {self.outcomes[AGREES]} agree, {len(self.wrong)} WRONG"]
        lines += [f"    {count:6d}  {reason}" for reason, count in self.outcomes.most_common() if reason != AGREES]
        lines += [f"    WRONG with seed {seed}: {why}" for seed, why in self.wrong.items()]
        return "\n".join(lines)


def attempt(name: str, seed: int, report: Report) -> None:
    try:
        report.outcomes[FUZZERS[name](seed)] += 1
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        report.wrong[seed] = f"{type(error).__name__}: {words} ({where.filename}:{where.lineno})"


def run(names: Iterable[str], seconds: float, first_seed: int, show: Callable[[str], None]) -> dict[str, Report]:
    """Try one seed after the other, of all fuzzers in turn, for a time; failures are shown at once."""
    reports = {name: Report() for name in names}
    seed, stop = first_seed, time.monotonic() + seconds
    while time.monotonic() < stop:
        for name, report in reports.items():
            failures = len(report.wrong)
            attempt(name, seed, report)
            if len(report.wrong) > failures:
                show(f"{name}: WRONG with seed {seed}: {report.wrong[seed]}")
        seed += 1
    return reports
