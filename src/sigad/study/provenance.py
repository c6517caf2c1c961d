"""Which source code does a result depend on? A digest that changes when, and only when, that code does."""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
def _imports(path: Path) -> frozenset[Path]:
    """The files of this package that a Python file imports, wherever in the file, and the packages they lie in."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == PACKAGE.name:
                for depth in range(1, len(parts) + 1):
                    base = PACKAGE.joinpath(*parts[1:depth])
                    found.update(file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file())
    return frozenset(found)


def source_digest(*paths: str | Path) -> str:
    """SHA-256 over the given Python files and all modules of this package that they import, directly or not.

    The text is normalised by the parser, so that comments, blank lines and time stamps do not count.
    """
    todo, seen = [Path(path).resolve() for path in paths], set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(_imports(path) - seen)
    digest = hashlib.sha256()
    for path in sorted(seen, key=lambda p: p.name + str(p)):
        digest.update(path.name.encode() + ast.dump(ast.parse(path.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:16]
