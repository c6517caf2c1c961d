"""Modules found by their name: a package in which every module holds one class of a family."""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Generic, TypeVar

from sigad.errors import ConfigurationError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of a package: one a module, loaded only when asked for, since some need torch, which takes seconds.

    Parameters
    ----------
    package, path : ``__name__`` and ``__path__`` of the package.
    base : the base class; a module holds one class that is derived from it.
    noun : what one of them is called.
    """

    def __init__(self, package: str, path: Sequence[str], base: type[T], noun: str):
        self._package, self._path, self._base, self._noun = package, path, base, noun

    def names(self) -> list[str]:
        """The names of all modules."""
        return sorted(module.name for module in pkgutil.iter_modules(self._path) if not module.name.startswith("_"))

    def load(self, name: str) -> type[T]:
        """The class of a module; raises ConfigurationError, with the nearest name, if there is no such module."""
        if name not in self.names():
            raise ConfigurationError(unknown(self._noun, name, self.names()))
        module = importlib.import_module(f"{self._package}.{name}")
        own = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, self._base) and value.__module__ == module.__name__
        ]
        if len(own) != 1:
            raise TypeError(f"{module.__name__} must hold one class derived from {self._base.__name__}, not {len(own)}")
        return own[0]
