"""The engines by their names, as tests take them."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from sigad.errors import UnsupportedOperationError
from sigad.inference.exact import Search, exact
from sigad.inference.hypothesis import PiecewiseHypothesis
from sigad.inference.lattice import Lattice, LatticeSearch, as_lattice

Engine = Callable[..., Search | LatticeSearch]
"""Called with a hypothesis, and with ``alternative`` and ``tolerance``."""


def engine_of(engine: str | Lattice, **options) -> Engine:
    """The exact engine, with these options of :func:`sigad.inference.exact.exact`, or the lattice engine.

    Raises InvalidInputError for what is neither "exact" nor "lattice" nor a Lattice with its settings.
    """
    if not isinstance(engine, str) or engine != "exact":
        return as_lattice(engine)

    def follow(hypothesis: PiecewiseHypothesis, **how) -> Search:
        with way_out():
            return exact(hypothesis, **options, **how)

    return follow


@contextmanager
def way_out() -> Generator[None]:
    """Errors of networks that the exact engine cannot follow say which engine can."""
    try:
        yield
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(
            f'{error}. Or pass engine="lattice", which takes every deterministic detector (docs/lattice.md)'
        ) from error
