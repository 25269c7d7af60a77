"""The modules that a file imports, read from its source."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imported_modules(path: Path, within_functions: bool = True) -> set[str]:
    """Return the dotted names of all imports that run, also those within functions."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if within_functions else _at_import(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when the module is imported, and not for a type checker alone."""
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if not is_function and not is_for_types:
            yield child
            yield from _at_import(child)
