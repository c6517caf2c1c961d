"""The house: arrows between rooms point one way, and no module imports itself on a detour."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "sigad"
# From the ground up: a room may import from its own floor and from those below.
FLOORS = [
    {"errors", "checks", "optional", "seeds"},
    {"line", "inference", "blackbox", "rejections"},
    {"knn", "localization", "models", "data", "selective", "instance", "diagnosis"},
    {"study"},
    {"figures"},
]


def imports_of(path):
    """The modules of the package that a file imports, at the top or within a function, as dotted names."""
    found, tree = set(), ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()  # names for the type checker, which are not imported
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from sigad.line import grid` imports a module, `from sigad.line.grid import x` its content.
            inside = PACKAGE.parent.joinpath(*node.module.split("."))
            for alias in node.names:
                is_module = (inside / f"{alias.name}.py").is_file() or (inside / alias.name / "__init__.py").is_file()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return {name for name in found if name.split(".")[0] == "sigad"}


def graph():
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ["sigad", *path.relative_to(PACKAGE).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: imports_of(path) & names.keys() - {name} for name, path in names.items()}


def test_no_module_imports_itself_on_a_detour():
    TopologicalSorter(graph()).prepare()  # raises CycleError, which names the circle


def test_arrows_between_rooms_point_one_way():
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    upwards = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if name != "sigad" and other != "sigad" and floor[name.split(".")[1]] < floor[other.split(".")[1]]
    ]
    assert not upwards, upwards


def test_data_and_engines_know_no_detector():
    rooms = {"data": {"knn", "localization", "models"}, "inference": {"knn", "localization", "models", "data"}}
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if "." in name and "." in other and other.split(".")[1] in rooms.get(name.split(".")[1], ())
    ]
    assert not wrong, wrong
