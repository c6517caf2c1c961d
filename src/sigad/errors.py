"""The errors that sigad raises on purpose. Each message says what to do next."""


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
    """An operation that cannot be treated exactly, hence never approximately."""


class DetectorError(SigadError, RuntimeError):
    """The detector under test failed, or gives answers that cannot be conditioned on."""


class NumericalError(SigadError, ArithmeticError):
    """A computation left its guaranteed accuracy. No p-value is reported rather than a wrong one."""
