"""The modules that a file imports, read from its source."""

import ast
from pathlib import Path


def imported_modules(path: Path) -> set[str]:
    """Return the dotted names of all imports, also those within functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names
