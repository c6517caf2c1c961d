"""Packages that only a part of sigad needs: each belongs to an extra, ``pip install 'sigad[<extra>]'``."""

from collections.abc import Generator
from contextlib import contextmanager

from sigad.errors import MissingPackageError


@contextmanager
def needs(extra: str) -> Generator[None]:
    """Around imports of optional packages: one that is not installed becomes an error that says what to install.

    Raises MissingPackageError in place of ModuleNotFoundError; every other failure of an import is passed on.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{error.name} is not installed: pip install 'sigad[{extra}]'") from error
