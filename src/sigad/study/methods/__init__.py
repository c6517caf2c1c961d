"""The methods that are compared: one module each, found by its name.

A method is a frozen dataclass derived from :class:`Method`; its fields, if it has any, are its parameters.
docs/adding-a-baseline.md shows how to add one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, Self, TypeVar

from sigad.errors import ConfigurationError
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost, Kind
from sigad.study.problems import Problems, PValues
from sigad.study.registry import Registry
from sigad.study.settings import Settings

P = TypeVar("P", bound=Problems)


@dataclass(frozen=True)
class Method(Settings, Generic[P]):
    """A way to a p-value of problems P.

    Class attributes
    ----------------
    label : what the figures call it.
    needs : names of the capabilities that problems must have (:data:`sigad.study.problems.CAPABILITIES`).
    needs_selection : True if only what the detector selected is tested; False for a test that is applied to every
        trial.
    of_instance : True if the null hypothesis is "the instance is normal", not the one that the detector selected.
    selects : True for a test with a selection of its own: its p-values are NaN where that selects nothing.
    """

    label: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    needs_selection: ClassVar[bool] = True
    of_instance: ClassVar[bool] = False
    selects: ClassVar[bool] = False

    def hypotheses(self, problems: Any) -> P:
        """What the method tests, of problems that have what it needs: the hypotheses that the detector selects by
        default, or others about the same data, given their own selection."""
        return problems

    def piloted(self, draw: Callable[[], Iterator[Block]]) -> Self:
        """The method with what it chooses before the first trial of a grid point, by pilots
        (:meth:`~sigad.study.kinds.Kind.pilots`), which are drawn as they are asked for."""
        return self

    def pvalues(self, problems: P, streams: Sequence[Streams]) -> PValues:
        """The p-values of B selected hypotheses; ``streams``, one each, for methods that randomise.

        Raises
        ------
        NumericalError
            where there is none: the trial becomes a row with the status ``failed``, the others keep theirs.
        """
        raise NotImplementedError

    @property
    def decides(self) -> float | None:
        """The level at which the p-values tell no more than whether they are below it; None if they are p-values."""
        return None

    def seconds(self, cost: Cost) -> float:
        """What a trial takes, draw included, from what its kind says about the costs of its parts."""
        return cost.draw

    def pilot_seconds(self, cost: Cost) -> float:
        """What :meth:`piloted` takes, in every job anew."""
        return 0.0


_REGISTRY = Registry(__name__, __path__, Method, "method")
names, load = _REGISTRY.names, _REGISTRY.load


def of(entry: str | Mapping[str, Mapping[str, Any]]) -> tuple[str, Method]:
    """A method from the configuration, with the name that tells it from others in files and tables.

    ``naive`` is a method with its defaults; ``{lattice: {spacing: 0.02}}`` one with parameters of its own, called
    ``lattice-spacing=0.02``.
    """
    if isinstance(entry, str):
        name, _, rest = entry.partition("-")
        if rest:
            raise ConfigurationError(unreadable(entry))
        return entry, load(name)()
    if not isinstance(entry, Mapping) or len(entry) != 1 or not isinstance(next(iter(entry.values())), Mapping | None):
        raise ConfigurationError(unreadable(entry))
    ((name, values),) = entry.items()
    try:
        method = load(name).of(values or {})
    except ConfigurationError as error:
        raise ConfigurationError(f"method {name!r}: {error}") from None
    return "-".join([name, *(f"{key}={value}" for key, value in (values or {}).items())]), method


def unreadable(entry: object) -> str:
    """What to say of an entry that names no method."""
    return f"a method is a name, or one with its parameters as {{permutation: {{permutations: 100}}}}, not {entry!r}"


def label(identifier: str) -> str:
    """What the figures call a method with the parameters in its identifier."""
    name, *parameters = identifier.split("-")
    method = load(name)
    hidden = {field.name for field in fields(method) if not field.metadata["shown"]}
    told = [p.replace("=", " ") for p in parameters if p.partition("=")[0] not in hidden]
    return method.label + (f" ({', '.join(told)})" if told else "")


def require_capabilities(name: str, method: Method, kind: type[Kind]) -> None:
    """Raise ConfigurationError if the problems of a kind lack what a method needs."""
    missing = sorted(method.needs - kind.offers)
    if missing:
        offers = ", ".join(sorted(kind.offers)) or "nothing special"
        raise ConfigurationError(
            f"the method {name!r} needs {', '.join(missing)}, and trials of the kind offer {offers}"
        )
