"""Cost of the kNN test with identity features: microseconds per p-value, growth with n, and against a line search.

    python benchmarks/knn.py

runs on one thread. The comparison needs sicore, which requires numpy < 2 and hence an environment of its own:

    python -m venv benchmarks/.venv-sicore
    benchmarks/.venv-sicore/bin/pip install sicore==3.0.0

Without it, that part is left out, with a message. Both sides then test the same problems, and their p-values are
compared: sicore's search stops when its bounds on the p-value are closer than ``PRECISION``.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sigad.knn import detect, knn_test, knn_test_batch

HERE = Path(__file__).parent
SICORE = HERE / ".venv-sicore" / "bin" / "python"
N, D, CANDIDATES = 100, 10, tuple(range(1, 11))
PRECISION = 1e-3  # sicore's default
LINE_SEARCHES = 20


def best_of(call: Callable[[], object], repeats: int) -> float:
    """The shortest of several wall times in seconds: the machine may be shared."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def problems(rng: np.random.Generator, size: int, n: int = N) -> dict:
    """Null problems, and a threshold at the median score, so that half of them are tested."""
    x_test, x_train = rng.normal(size=(size, D)), rng.normal(size=(size, n, D))
    score = detect(x_test, x_train, k=CANDIDATES, threshold=-np.inf).score
    return {"x_test": x_test, "x_train": x_train, "threshold": float(np.median(score)), "k": CANDIDATES}


def per_pvalue(rng: np.random.Generator) -> None:
    """Single and batched, all problems tested."""
    print(f"n = {N}, d = {D}, {len(CANDIDATES)} candidates for k; every instance tested; microseconds per p-value")
    for options, batch in (
        ({}, 1000),
        ({"against": "neighbourhood"}, 1000),
        ({"condition_on_k": False}, 200),
        ({"metric": "l1"}, 200),
        ({"metric": "linf"}, 200),
    ):
        case = {**problems(rng, batch), "threshold": -np.inf, "covariance": 1.0, **options}
        one = {**case, "x_test": case["x_test"][0], "x_train": case["x_train"][0]}
        single = best_of(lambda one=one: knn_test(**one), 100) * 1e6
        batched = best_of(lambda case=case: knn_test_batch(**case), 5) / batch * 1e6
        name = ", ".join(f"{k}={v}" for k, v in options.items()) or "default"
        print(f"  {name:24s} single {single:7.0f}   batched {batched:7.1f}   ratio {single / batched:5.1f}")


def growth(rng: np.random.Generator) -> None:
    """Cost over n; n log n is the limit we set ourselves."""
    sizes = np.array([100, 1_000, 10_000, 100_000])
    seconds = []
    for n in sizes:
        batch = max(2, 20_000 // n)
        case = {**problems(rng, batch, n), "threshold": -np.inf, "covariance": 1.0}
        seconds.append(best_of(lambda case=case: knn_test_batch(**case), 5) / batch)
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    limit = np.polyfit(np.log(sizes), np.log(sizes * np.log(sizes)), 1)[0]
    print(f"growth with n, d = {D}, batched: seconds ~ n^{exponent:.2f}; n log n is n^{limit:.2f} over this range")
    for n, s in zip(sizes, seconds, strict=True):
        print(f"  n = {n:7d}  {s * 1e6:10.0f} us   {s / (n * np.log(n)) * 1e9:6.1f} ns per n log n")


def against_line_search(rng: np.random.Generator) -> None:
    """The same problems with sicore's parametric search."""
    if not SICORE.exists():
        print("comparison with a line search left out: see the docstring for how to create benchmarks/.venv-sicore")
        return
    case = problems(rng, 4 * LINE_SEARCHES)
    selected = detect(**case).selected.nonzero()[0][:LINE_SEARCHES]
    case |= {"x_test": case["x_test"][selected], "x_train": case["x_train"][selected]}
    batched = best_of(lambda: knn_test_batch(**case, covariance=1.0), 20) / len(selected)
    single = best_of(
        lambda: knn_test(**{**case, "x_test": case["x_test"][0], "x_train": case["x_train"][0], "covariance": 1.0}), 50
    )
    ours = knn_test_batch(**case, covariance=1.0).p_value
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "problems.npz", Path(folder) / "results.npz"
        np.savez(given, precision=PRECISION, **case)
        subprocess.run([SICORE, HERE / "_sicore_knn.py", given, found], check=True)
        theirs = dict(np.load(found))
    search = np.median(theirs["seconds"])
    difference = np.abs(ours - theirs["p_value"]).max()
    print(f"line search with sicore to {PRECISION:g}, {len(selected)} p-values of the same problems (median)")
    print(f"  {search * 1e3:.0f} ms and {np.median(theirs['count']):.0f} steps per p-value")
    print(f"  ratio to single {search / single:.0f}, to batched {search / batched:.0f}")
    print(f"  largest difference of the p-values {difference:.1e}")
    if difference > PRECISION:
        sys.exit("the p-values differ by more than the search's precision")


def main() -> None:
    rng = np.random.default_rng(0)
    per_pvalue(rng)
    growth(rng)
    against_line_search(rng)


if __name__ == "__main__":
    main()
