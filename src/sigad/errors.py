"""The errors that sigad raises on purpose. Each message says what to do next."""

import difflib
from collections.abc import Iterable


class SigadError(Exception):
    """Base class of every error that sigad raises on purpose."""


class InvalidInputError(SigadError, ValueError):
    """An argument has the wrong shape, holds NaN, or lies outside its domain."""


class ConfigurationError(SigadError, ValueError):
    """The experiment configuration contradicts itself or names something unknown."""


class MissingDataError(SigadError, FileNotFoundError):
    """A data set or a file of weights is not there and cannot be fetched."""


class StorageError(SigadError, OSError):
    """A file could not be written: the disk is full, or the folder must not be written to."""


class MissingPackageError(SigadError, ImportError):
    """An optional package is not installed. The message has the command that installs it."""


class UnsupportedOperationError(SigadError, NotImplementedError):
    """An operation that cannot be treated exactly, hence never approximately. ``operation``: its name."""

    operation: str | None = None


class DetectorError(SigadError, RuntimeError):
    """The detector under test failed, or gives answers that cannot be conditioned on."""


class NumericalError(SigadError, ArithmeticError):
    """A computation left its guaranteed accuracy. No p-value is reported rather than a wrong one."""


def near(name: object, known: Iterable[object]) -> str:
    """ "; did you mean 'quantile'?", or nothing where no known name resembles the given one."""
    names = {str(k).lower(): str(k) for k in known}
    given = str(name).lower()
    longer = [n for n in names if n.startswith(given) and given]
    found = longer if len(longer) == 1 else difflib.get_close_matches(given, names, n=1) or longer
    return f"; did you mean {names[found[0]]!r}?" if found else ""


def unknown(what: str, name: object, known: Iterable[object]) -> str:
    """A sentence for a name that does not exist: what it should be, the nearest name that does, and all that do."""
    names = [str(k) for k in known]
    return f"there is no {what} {name!r}{near(name, names)} (there are: {', '.join(names) or 'none'})"
