"""What the code imports is declared, and the environments agree."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def names(requirements):
    """Normalised names of distributions; of an extra of our own, those that it stands for."""
    found = set()
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")
        own = re.match(r"sigad\[(.*)\]", requirement)
        found |= set().union(*(names(EXTRAS[extra]) for extra in own[1].split(","))) if own else {name}
    return found


def imported(*folders):
    """Third-party packages that Python files import, wherever in the file, as distributions."""
    modules = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    foreign = modules - set(sys.stdlib_module_names) - {"sigad"}
    return {d.lower().replace("_", "-") for module in foreign for d in distributions.get(module, [module])}


def pinned(lines):
    """Versions by distribution."""
    exact = (re.match(r"\s*(?:- )?([A-Za-z0-9_.-]+) ?==?([0-9.]+)", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in exact if match}


def test_every_package_that_the_library_imports_is_declared():
    declared = names(PROJECT["dependencies"]).union(*map(names, EXTRAS.values()))
    assert imported("src/sigad", "workflow/stages") - declared <= {"pillow"}  # comes with matplotlib and torchvision


def test_the_environment_of_the_stages_has_what_they_need():
    packages = yaml.safe_load((ROOT / "envs" / "sigad.yaml").read_text(encoding="utf-8"))["dependencies"]
    packages = [*packages[:-1], *packages[-1]["pip"]]
    # Snakemake and what checks the configuration run outside.
    needed = names(PROJECT["dependencies"]) | names(EXTRAS["pipeline"])
    outside = {"snakemake", "snakemake-executor-plugin-slurm", "pyyaml", "jsonschema"}
    assert needed - outside <= names(packages)


def test_versions_agree():
    lock = pinned((ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines())
    stages = pinned((ROOT / "envs" / "sigad.yaml").read_text(encoding="utf-8").splitlines())
    assert {"torch", "numpy", "diffusers"} <= set(stages)
    for name, version in stages.items():
        if name != "python":
            assert f"{lock[name]}.".startswith(f"{version}."), name
    for name in names(PROJECT["dependencies"]) | names(EXTRAS["dev"]) - {"pre-commit"}:
        assert name in lock, f"{name} is not in requirements.lock"
