"""Fuzzers: random problems against the definition. A few seeds in the test suite, many by python -m tests.fuzz."""
