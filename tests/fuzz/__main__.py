"""python -m tests.fuzz --minutes N [--only NAME ...] [--seed FIRST]; with --once, one seed with its traceback."""

import argparse
import sys
import time

from tests.fuzz import load, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Random problems against an oracle.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", choices=sorted(load()), help="fuzzers, by name; all by default")
    parser.add_argument("--seed", type=int, help="the first seed; by default the time, so that each run sees others")
    parser.add_argument("--once", action="store_true", help="try the seed only, and show where it fails")
    arguments = parser.parse_args()
    seed = int(time.time()) * 1000 if arguments.seed is None else arguments.seed
    names = arguments.only or sorted(load())
    if arguments.once:
        for name in names:
            load()[name](seed)
        return 0
    print(f"{arguments.minutes:g} minutes from seed {seed}", flush=True)
    reports = run(names, 60 * arguments.minutes, seed, lambda text: print(text, flush=True))
    for name, report in reports.items():
        print(f"{name}: {report}")
    return any(report.wrong for report in reports.values())


if __name__ == "__main__":
    sys.exit(main())
