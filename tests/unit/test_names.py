"""A name means one thing."""

import ast
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def public_classes(package: str) -> Counter[str]:
    """Count the definitions of public classes by name, in all modules of `package`."""
    trees = (ast.parse(path.read_text()) for path in (REPOSITORY / package).rglob("*.py"))
    nodes = (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    return Counter(node.name for node in nodes if not node.name.startswith("_"))


@pytest.mark.parametrize("package", ["serve_app", "kuberay"])
def test_a_class_name_is_defined_once(package: str) -> None:
    """A reader who meets a public class knows it without a look at the imports."""
    assert [name for name, count in public_classes(package).items() if count > 1] == []
