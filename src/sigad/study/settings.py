"""Typed settings: declared once, and from the declaration follow defaults, checks, the JSON schema and the docs' table.

A class of settings is a frozen dataclass whose fields are made by :func:`setting`.
"""

import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from sigad.errors import ConfigurationError, near, unknown

_JSON_TYPES: dict[type, str] = {int: "integer", float: "number", str: "string"}
_NAMES: dict[type, str] = {int: "an integer", float: "a number", str: "text"}


def setting(
    default: Any,
    meaning: str,
    *,
    choices: Iterable[Any] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    pattern: str | None = None,
    source: str = "chosen",
    shown: bool = True,
) -> Any:
    """A field of a class of settings.

    Parameters
    ----------
    default : its value where none is given.
    meaning : one line for the documentation.
    choices : all values that it may have.
    low, high, above, below : bounds, inclusive and exclusive.
    pattern : regular expression that text must match as a whole.
    source : "paper" or "chosen".
    shown : whether figures tell it; not where it changes none of their numbers.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    metadata = {"meaning": meaning, "choices": tuple(choices), "bounds": given, "pattern": pattern, "source": source}
    metadata["shown"] = shown
    return field(default=default, metadata=metadata)


_BOUNDS = {
    "low": ("at least", "minimum", lambda value, bound: value >= bound),
    "high": ("at most", "maximum", lambda value, bound: value <= bound),
    "above": ("greater than", "exclusiveMinimum", lambda value, bound: value > bound),
    "below": ("less than", "exclusiveMaximum", lambda value, bound: value < bound),
}


@dataclass(frozen=True)
class Settings:
    """Base of the classes of settings; making one checks every value.

    Raises
    ------
    ConfigurationError
        that names the key, the value and what is allowed.
    """

    def __post_init__(self) -> None:
        types = _types(type(self))
        for key in fields(self):
            _check(key, types[key.name], getattr(self, key.name))
        self.check()

    def check(self) -> None:
        """Raise ConfigurationError for values that do not go together."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a mapping; a key that does not exist raises ConfigurationError with the nearest one."""
        for name in values:
            if name not in cls.keys():
                raise ConfigurationError(unknown("setting", name, cls.keys()))
        return cls(**values)

    @classmethod
    def keys(cls) -> list[str]:
        """The names of the settings."""
        return [key.name for key in fields(cls)]

    @property
    def values(self) -> dict[str, Any]:
        """Every key with its value, defaults included."""
        return {key.name: getattr(self, key.name) for key in fields(self)}

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """The JSON schema of a mapping of some of the keys."""
        types = _types(cls)
        properties = {key.name: _schema_of(key, types[key.name]) for key in fields(cls)}
        return {"type": "object", "additionalProperties": False, "properties": properties}

    @classmethod
    def table(cls) -> str:
        """The keys as a table in Markdown: key, meaning, allowed values, default, source."""
        lines = ["| key | meaning | values | default | from |", "| --- | --- | --- | --- | --- |"]
        types = _types(cls)
        for key in fields(cls):
            allowed = _allowed(key, types[key.name])
            facts = (f"`{key.name}`", key.metadata["meaning"], allowed, f"`{key.default}`", key.metadata["source"])
            lines.append(f"| {' | '.join(facts)} |")
        return "\n".join(lines)


def _types(cls: type[Settings]) -> dict[str, tuple[type, ...]]:
    hints = typing.get_type_hints(cls)
    return {key.name: _types_of(hints[key.name]) for key in fields(cls)}


def _types_of(hint: Any) -> tuple[type, ...]:
    """The types of the values that an annotation allows: a type, a union of types, or a Literal."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return tuple(dict.fromkeys(map(type, parts)))
    return parts or (hint,)


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) and math.isfinite(value) if kind is float else isinstance(value, kind)


def _check(key, types: tuple[type, ...], value: Any) -> None:
    if not any(_is_a(value, kind) for kind in types):
        wanted = " or ".join(_NAMES[kind] for kind in types)
        raise ConfigurationError(f"{key.name} must be {wanted}, not {_shown(value)}")
    choices = key.metadata["choices"]
    if choices and value not in choices:
        names = ", ".join(map(str, choices))
        raise ConfigurationError(f"{key.name} must be one of {names}, not {value!r}{near(value, choices)}")
    for name, bound in key.metadata["bounds"].items():
        words, _, holds = _BOUNDS[name]
        if not isinstance(value, str) and not holds(value, bound):
            raise ConfigurationError(f"{key.name} must be {words} {bound}, not {value!r}")
    pattern = key.metadata["pattern"]
    if pattern and isinstance(value, str) and not re.fullmatch(pattern, value):
        raise ConfigurationError(f"{key.name} must be {_allowed(key, types)}, not {value!r}")


def _shown(value: Any) -> str:
    return f"the text {value!r}" if isinstance(value, str) else repr(value)


def _allowed(key, types: tuple[type, ...]) -> str:
    if key.metadata["choices"]:
        return ", ".join(f"`{choice}`" for choice in key.metadata["choices"])
    words = [f"{_BOUNDS[name][0]} {bound}" for name, bound in key.metadata["bounds"].items()]
    text = f"{' or '.join(_NAMES[kind] for kind in types if kind is not str or len(types) == 1)}"
    allowed = " ".join([text, " and ".join(words)]).strip()
    return allowed + (f", or text like `{key.default}`" if key.metadata["pattern"] else "")


def _schema_of(key, types: tuple[type, ...]) -> dict[str, Any]:
    if key.metadata["choices"]:
        schema: dict[str, Any] = {"enum": list(key.metadata["choices"])}
    else:
        bounds = {_BOUNDS[name][1]: bound for name, bound in key.metadata["bounds"].items()}
        pattern = {"pattern": f"^({key.metadata['pattern']})$"} if key.metadata["pattern"] else {}
        each = [{"type": _JSON_TYPES[kind]} | (pattern if kind is str else bounds) for kind in types]
        schema = each[0] if len(each) == 1 else {"anyOf": each}
    return {"description": key.metadata["meaning"], "default": key.default} | schema
