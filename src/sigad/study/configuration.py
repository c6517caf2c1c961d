"""The configuration as a whole: checked against its schemas, with one line for what is wrong."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sigad.errors import ConfigurationError, near, unknown
from sigad.optional import needs
from sigad.study.reference import definitions

with needs("pipeline"):
    import yaml
    from jsonschema import Draft202012Validator

_WORDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "greater than {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "a list of at least {}",
    "minProperties": "a mapping of at least {}",
    "uniqueItems": "a list without repetitions",
    "const": "{!r}",
}
_TYPES = {
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "a mapping",
    "boolean": "true or false",
    "null": "null",
}


def validate(config: Mapping[str, Any], schemas: str | Path) -> None:
    """Check a configuration against ``config.schema.yaml``, and its data sets against ``datasets.schema.yaml``.

    Raises
    ------
    ConfigurationError
        in one line: the place, what is wrong, and the nearest name that exists where one is misspelt.
    """
    datasets = {key: config[key] for key in ("tabular", "images", "stacks") if config.get(key) is not None}
    # A kind counts as soon as there is its file, not when its schema is written down.
    _validate(config, _read(schemas, "config.schema.yaml") | {"$defs": definitions()})
    _validate(datasets, _read(schemas, "datasets.schema.yaml"))


def _read(folder: str | Path, name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(folder, name).read_text(encoding="utf-8"))


def _validate(document: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    validator = Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    if errors:
        raise ConfigurationError(_line(errors[0], document))


def _line(error: Any, document: Mapping[str, Any]) -> str:
    """One line for an error of jsonschema."""
    at = list(error.absolute_path)
    if at[:1] == ["experiments"] and len(at) > 1:
        place = [f"experiment {at[1]!r}", *map(str, at[2:])]
    else:
        place = list(map(str, at))
    value, rule, allowed = error.instance, error.validator, error.validator_value
    if rule == "additionalProperties":
        known = error.schema.get("properties", {})
        wrong = next(key for key in value if key not in known)
        return ": ".join([*place, unknown("key", wrong, known)])
    if rule == "required":
        missing = next(key for key in allowed if key not in value)
        siblings: Any = document
        for key in at[:-1]:
            siblings = siblings[key]
        others = [key for key in siblings if key != at[-1]] if at and isinstance(siblings, Mapping) else []
        return ": ".join([*place, f"`{missing}` is missing{near(at[-1], others) if at else ''}"])
    if rule == "enum":
        words = f"one of {', '.join(map(str, allowed))}"
        return f"{': '.join(place)} must be {words}, not {value!r}{near(value, allowed)}"
    if rule == "type":
        names = [allowed] if isinstance(allowed, str) else allowed
        words = " or ".join(_TYPES[name] for name in names)
    elif rule in _WORDS:
        words = _WORDS[rule].format(allowed)
    else:
        words = error.schema.get("description") or f"like {allowed}"
    shown = f"the text {value!r}" if isinstance(value, str) and rule == "type" else repr(value)
    return f"{': '.join(place)} must be {words}, not {shown}"


def overridden(given: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """A line for each value of the command line that some experiments do not take, for they have one of their own."""
    lines = []
    for key in given:
        own = [name for name, entry in config["experiments"].items() if key in entry]
        if own:
            lines.append(f"{key} of the command line does not reach experiments that set their own: {', '.join(own)}")
    return lines
