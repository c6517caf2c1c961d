"""Which source code does a result depend on? A digest that changes when, and only when, that code does."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
def _read(path: Path) -> tuple[frozenset[Path], str]:
    """The files of this package that a Python file imports, and a text that is the same for the same code."""
    tree = _parsed(path)
    return frozenset(_imports(tree)), path.name + ast.dump(tree)


def _parsed(path: Path) -> ast.Module:
    """The code of a file that is run: without docstrings, and without what only a type checker sees."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for name, block in ast.iter_fields(node):
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                kept = [statement for statement in block if not _is_for_people(statement)]
                setattr(node, name, kept or [ast.Pass()])
    return tree


def _is_for_people(statement: ast.stmt) -> bool:
    """Whether a statement is text that stands alone, or imports under ``if TYPE_CHECKING``."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING" and not statement.orelse


def _imports(tree: ast.Module) -> Iterator[Path]:
    """The files of this package that are imported, wherever in a file, and the packages they lie in."""
    for node in ast.walk(tree):
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
                    yield from (file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file())


def source_files(*paths: str | Path) -> set[Path]:
    """The given Python files and all modules of this package that they import, directly or not."""
    todo, seen = [Path(path).resolve() for path in paths], set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(_read(path)[0] - seen)
    return seen


def source_digest(*paths: str | Path) -> str:
    """SHA-256 over :func:`source_files`, as the parser sees them: comments, docstrings and time stamps do not count."""
    digest = hashlib.sha256()
    for path in sorted(source_files(*paths), key=lambda p: p.name + str(p)):
        digest.update(_read(path)[1].encode())
    return digest.hexdigest()[:16]
