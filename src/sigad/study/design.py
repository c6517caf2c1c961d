"""The design of an experiment: its settings, methods and chunks of repetitions, checked before anything is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sigad.errors import ConfigurationError, MissingDataError
from sigad.study import methods
from sigad.study.chunks import chunk_names
from sigad.study.rates import MEASURES
from sigad.study.run import KINDS, load_kind

Setting = dict[str, object]


@dataclass(frozen=True)
class Experiment:
    """One experiment, laid out.

    ``settings`` maps the name of each grid point to all of its parameters, defaults included; ``cells`` are the
    (setting, method, chunk) that have to be computed; ``plot`` says how it is drawn.
    """

    name: str
    kind: str
    measure: str
    settings: dict[str, Setting]
    cells: list[tuple[str, str, str]]
    plot: dict


def grid_values(grid: Mapping[str, object], datasets: Sequence[str]) -> dict[str, list]:
    """The grid with ``dataset: enabled`` replaced by the data sets that can be had; there must be one."""
    if grid.get("dataset") == "enabled" and not datasets:
        raise ConfigurationError("no data set is enabled or can be had: see config/datasets.yaml")
    return {
        name: list(datasets) if name == "dataset" and values == "enabled" else list(values)
        for name, values in grid.items()
    }


def lay_out(name: str, entry: Mapping, points: Mapping[str, Setting], config: Mapping) -> Experiment:
    """Lay out one experiment and check it.

    Parameters
    ----------
    name, entry : key and value under ``experiments`` in the configuration.
    points : the grid points: name -> the parameters that vary.
    config : the whole configuration, for the defaults.

    Raises
    ------
    ConfigurationError
        that names the experiment and the key that is wrong.
    """
    try:
        kind, measure = entry["kind"], entry["measure"]
        if kind not in KINDS or kind not in config["kinds"]:
            raise ConfigurationError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        if measure not in MEASURES:
            raise ConfigurationError(f"measure must be one of {', '.join(MEASURES)}, not {measure!r}")
        defaults = config["kinds"][kind]
        fixed = entry.get("settings", {})
        for key in [*fixed, *entry["grid"]]:
            if key not in defaults:
                raise ConfigurationError(
                    f"there is no setting {key!r} for the kind {kind!r}: choose from {', '.join(defaults)}"
                )
        for key in fixed:
            if key in entry["grid"]:
                raise ConfigurationError(f"{key!r} stands both under settings and in the grid")
        for role in ("x", "panel", "series"):
            if role in entry["plot"] and entry["plot"][role] not in entry["grid"]:
                raise ConfigurationError(f"plot.{role} must be a key of the grid, not {entry['plot'][role]!r}")
        settings = {point: {**defaults, **fixed, **values} for point, values in points.items()}
        for point, setting in settings.items():
            try:
                load_kind(kind).check(setting)
            except ConfigurationError as error:
                raise ConfigurationError(f"at {point}: {error}") from None
        for method in entry["methods"]:
            methods.load(method, kind)
        chunks = chunk_names(
            entry.get("repetitions", config["repetitions"]), entry.get("chunk_size", config["chunk_size"])
        )
        cells = [
            (point, method, chunk)
            for point, setting in settings.items()
            for method in entry["methods"]
            if not _omitted(method, setting, entry.get("omit", ()))
            for chunk in chunks
        ]
    except ConfigurationError as error:
        raise ConfigurationError(f"experiment {name!r}: {error}") from None
    return Experiment(name, kind, measure, settings, cells, dict(entry["plot"]))


def _omitted(method: str, setting: Setting, rules: Sequence[Mapping]) -> bool:
    """Whether a rule such as ``{model: clusters, methods: [hotelling_t2]}`` leaves a method out of a setting."""
    return any(
        method in rule["methods"] and all(setting.get(key) == value for key, value in rule.items() if key != "methods")
        for rule in rules
    )


def require_images(setting: Setting, config: Mapping, data_dir: str) -> None:
    """Check that the image set and the network of a setting of the kind ``knn_images`` exist and can be had.

    Raises ConfigurationError for a name that the configuration does not know, MissingDataError for images that are
    neither there nor have an address.
    """
    from sigad.data.mvtec import availability

    for key, section in (("dataset", "images"), ("features", "features")):
        known = config.get(section) or {}
        if setting[key] not in known:
            raise ConfigurationError(f"{key}: {setting[key]!r} is none of `{section}`: {', '.join(known)}")
    name = str(setting["dataset"])
    available, reason = availability(name, config["images"][name], data_dir)
    if not available:
        raise MissingDataError(f"the image set {name!r} cannot be had: {reason}")
