"""The design of an experiment: grid points, methods, and the jobs that compute them, checked before anything runs.

A job is a method on a *part* of the grid (all of it where that is cheap, a single point where that is dear) and a
*chunk* of the repetitions. Both follow from the measured costs that the kind states, never from the machine or from how
many repetitions there are, so that more repetitions only add chunks. What is computed does not depend on either.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from sigad.errors import ConfigurationError, SigadError, near, unknown
from sigad.study import kinds, methods
from sigad.study.chunks import chunk_names, chunk_range
from sigad.study.kinds import Kind
from sigad.study.methods import Method
from sigad.study.rates import MEASURES

ALL = "all"
"""Name of the part that is the whole grid."""

REPETITIONS_TOGETHER = 10
"""Grid points share a part as long as a job has time for so many repetitions of all of them."""

_KEYS = ("kind", "measure", "methods", "grid", "plot")


class Part(NamedTuple):
    """Grid points that are computed together, and how many of their repetitions make a job."""

    points: tuple[str, ...]
    size: int


class Job(NamedTuple):
    """What one job computes."""

    method: str
    part: str
    chunk: str


@dataclass(frozen=True)
class Experiment:
    """One experiment, laid out.

    ``settings`` maps the name of each grid point to its settings; ``methods``, the name of each method to it;
    ``parts``, each method to its parts by name; ``plot`` says how the experiment is drawn.
    """

    name: str
    kind: str
    measure: str
    settings: dict[str, Kind]
    methods: dict[str, Method]
    parts: dict[str, dict[str, Part]]
    repetitions: int
    plot: dict[str, Any]

    @property
    def jobs(self) -> list[Job]:
        """All jobs."""
        return [
            Job(method, name, chunk)
            for method, parts in self.parts.items()
            for name, part in parts.items()
            for chunk in chunk_names(self.repetitions, part.size)
        ]

    def points(self, method: str, part: str) -> dict[str, Kind]:
        """The settings of the grid points of a part."""
        return {point: self.settings[point] for point in self.parts[method][part].points}

    def inputs(self, method: str, part: str) -> list[str]:
        """The files that a part's trials read, relative to the folder of results."""
        return _distinct(setting.inputs(self.name) for setting in self.points(method, part).values())

    def seconds(self, method: str, part: str, chunk: str) -> float:
        """What a job takes, by the costs that the kind states."""
        costs, of = [setting.cost() for setting in self.points(method, part).values()], self.methods[method]
        return sum(of.seconds(cost) * len(chunk_range(chunk)) + of.pilot_seconds(cost) for cost in costs)

    def memory(self, method: str, part: str) -> int:
        """MB that a job takes."""
        return max(setting.cost().memory for setting in self.points(method, part).values())


def needed_in(folder: str, experiments: Mapping[str, Experiment]) -> list[str]:
    """The files in a folder of results that some trials read, without the folder."""
    inputs = (setting.inputs(e.name) for e in experiments.values() for setting in e.settings.values())
    return [path.removeprefix(f"{folder}/") for path in _distinct(inputs) if path.startswith(f"{folder}/")]


def _distinct(inputs: Iterable[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(path for files in inputs for path in files.values()))


def cut(
    seconds: Mapping[str, float], longest: float, size: int | None = None, once: Mapping[str, float] | None = None
) -> dict[str, Part]:
    """Cut a grid into parts whose jobs take ``longest`` seconds at most, and its repetitions into chunks.

    Parameters
    ----------
    seconds : what one repetition takes at each grid point.
    longest : seconds that a job may take; a single repetition of a single grid point may exceed them.
    size : repetitions per job, if they are not to follow from the costs.
    once : what every job takes at each grid point, however many repetitions it has: half of a job at most, if need be
        of a longer one.

    Returns
    -------
    The parts by name: ``all``, a grid point, or ``first..last`` grid point. Neighbours on the grid stay together while
    a job has time for :data:`REPETITIONS_TOGETHER` repetitions of them.
    """
    once = once or dict.fromkeys(seconds, 0.0)
    groups: list[list[str]] = [[]]
    spent = 0.0
    for point, each in seconds.items():
        least = each * REPETITIONS_TOGETHER + 2 * once[point]
        if groups[-1] and spent + least > longest:
            groups.append([])
            spent = 0.0
        groups[-1].append(point)
        spent += least
    parts = {}
    for group in groups:
        name = ALL if len(groups) == 1 else group[0] if len(group) == 1 else f"{group[0]}..{group[-1]}"
        fixed, each = (sum(costs[point] for point in group) for costs in (once, seconds))
        parts[name] = Part(tuple(group), size or _round(max(longest - fixed, fixed) / each))
    return parts


def _round(number: float) -> int:
    """The largest whole number with two significant digits that is not greater, and at least 1."""
    digits = max(0, math.floor(math.log10(max(number, 1))) - 1)
    return max(1, int(number // 10**digits) * 10**digits)


def grid_points(grid: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """The points of a grid by name, such as ``n=50_d=10``: every combination of the values."""
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return {"_".join(f"{key}={value}" for key, value in point.items()): point for point in points}


def lay_out_all(config: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, Experiment]:
    """All experiments of a configuration, by name; ``datasets`` are the tables that can be had."""
    names = config["experiments"]
    complete = [name for name, entry in names.items() if "kind" in entry]
    for name, entry in names.items():
        if "kind" not in entry:
            raise ConfigurationError(f"experiment {name!r} has no `kind`{near(name, complete)}")
    return {name: lay_out(name, entry, config, datasets) for name, entry in names.items()}


def lay_out(name: str, entry: Mapping[str, Any], config: Mapping[str, Any], datasets: Sequence[str] = ()) -> Experiment:
    """Lay out one experiment and check it.

    Parameters
    ----------
    name, entry : key and value under ``experiments`` in the configuration.
    config : the whole configuration.
    datasets : the tables that ``dataset: enabled`` stands for.

    Raises
    ------
    ConfigurationError, MissingDataError
        in one line that names the experiment, the key and what is wrong with it.
    """
    try:
        for key in _KEYS:
            if key not in entry:
                raise ConfigurationError(f"`{key}` is missing")
        return _lay_out(name, entry, config, datasets)
    except SigadError as error:
        raise type(error)(f"experiment {name!r}: {error}") from None


def _lay_out(name: str, entry: Mapping[str, Any], config: Mapping[str, Any], datasets: Sequence[str]) -> Experiment:
    kind, measure, fixed = kinds.load(entry["kind"]), entry["measure"], entry.get("settings") or {}
    if measure not in MEASURES:
        raise ConfigurationError(f"measure must be one of {', '.join(MEASURES)}, not {measure!r}")
    grid = _grid(entry["grid"], datasets)
    for key in fixed:
        if key in grid:
            raise ConfigurationError(f"{key!r} stands both under settings and in the grid")
    _check_plot(entry["plot"], grid, len(entry["methods"]))
    settings = {}
    kind.of(fixed)
    for point, values in grid_points(grid).items():
        try:
            settings[point] = kind.of({**fixed, **values})
            settings[point].require(config)
        except SigadError as error:
            raise type(error)(f"at {point}: {error}") from None
    chosen = dict(methods.of(method) for method in entry["methods"])
    for identifier, method in chosen.items():
        methods.require_capabilities(identifier, method, kind)
        if method.decides is not None and (entry["plot"]["type"] != "rates" or method.decides != config["alpha"]):
            raise ConfigurationError(
                f"the method {identifier!r} decides at {method.decides}, which serves rates at alpha = "
                f"{config['alpha']} only if they are equal, and no other plot"
            )
    omit = entry.get("omit") or ()
    for rule in omit:
        for method in rule["methods"]:
            if method not in chosen:
                raise ConfigurationError(f"omit: {unknown('method here', method, chosen)}")
        for key in rule:
            if key != "methods" and key not in kind.keys():
                raise ConfigurationError(f"omit: {unknown('setting', key, kind.keys())}")
    longest, size = config["job_seconds"], entry.get("chunk_size") or config.get("chunk_size")
    parts = {}
    for identifier, method in chosen.items():
        costs = {point: s.cost() for point, s in settings.items() if not _omitted(identifier, s, omit)}
        if costs:
            seconds = {point: method.seconds(cost) for point, cost in costs.items()}
            once = {point: method.pilot_seconds(cost) for point, cost in costs.items()}
            parts[identifier] = cut(seconds, longest, size, once)
    repetitions = entry.get("repetitions", config["repetitions"])
    return Experiment(name, entry["kind"], measure, settings, chosen, parts, repetitions, dict(entry["plot"]))


def _check_plot(plot: Mapping[str, Any], grid: Mapping[str, Any], n_methods: int) -> None:
    """What stands for what is known, and neither methods nor grid points fall on one another."""
    for role, keys in (("x", grid), ("y", grid), ("panel", [*grid, "method"]), ("series", [*grid, "method"])):
        if role in plot and plot[role] not in keys:
            raise ConfigurationError(f"plot.{role}: {unknown('key of the grid', plot[role], keys)}")
    if "y" not in plot:
        if n_methods > 1 and "method" not in (plot.get("series", "method"), plot.get("panel")):
            raise ConfigurationError("plot: methods cannot be told apart; one of panel and series must be `method`")
        return
    # A surface shows one rate at each x and y in the panel of a method.
    if plot["type"] != "rates" or "panel" in plot or "series" in plot:
        raise ConfigurationError("plot.y makes a surface of rates with a panel for each method: no panel, no series")
    if {plot.get("x"), plot["y"]} != set(grid):
        raise ConfigurationError(f"a surface over x and y needs a grid of just these, not of {', '.join(grid)}")


def _grid(grid: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, list]:
    """The grid with ``dataset: enabled`` replaced by the data sets that can be had; there must be one."""
    if grid.get("dataset") == "enabled" and not datasets:
        raise ConfigurationError("no data set is enabled or can be had: see config/datasets.yaml")
    return {
        name: list(datasets) if name == "dataset" and values == "enabled" else list(values)
        for name, values in grid.items()
    }


def _omitted(method: str, setting: Kind, rules: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a rule such as ``{model: clusters, methods: [hotelling_t2]}`` leaves a method out of a setting."""
    return any(
        method in rule["methods"]
        and all(getattr(setting, key) == value for key, value in rule.items() if key != "methods")
        for rule in rules
    )
