"""The code as a tree, for tests that hold by construction."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.processes import ROOT

PACKAGE = ROOT / "webhook_app"


@cache
def modules() -> dict[str, ast.Module]:
    """Path below `webhook_app` → its tree."""
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.Module) -> Iterator[str]:
    """Full names of the modules that one imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # `from webhook_app import auth` names a room, too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or Path(path, "__init__.py").is_file()
