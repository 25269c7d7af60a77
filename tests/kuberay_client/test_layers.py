"""The client's imports point down only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kuberay"
# From the top: a module may import what stands further down, or its own layer.
LAYERS = [
    ["__main__"],
    ["commands"],
    ["table"],
    ["client"],
    ["waiting", "watching", "deletion", "logs", "rehearsal", "manifests"],
    ["diagnosis"],
    ["service_rules", "pod_rules"],
    ["reading", "events", "changes", "objects"],
    ["observed", "serve_config", "api_server", "connection"],
    ["finding", "sentences", "errors"],
]
PURE = {
    *("observed", "reading", "events", "sentences", "finding", "service_rules", "pod_rules"),
    *("diagnosis", "waiting", "changes", "serve_config"),
}
NETWORK = {"kubernetes", "urllib3", "kuberay.api_server", "kuberay.objects", "time", "threading"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def depth(name: str) -> int:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), len(LAYERS))


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_down(path: Path) -> None:
    """No module knows of those above it, and what decides knows neither network nor clock."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if name == "__init__":
        return
    names = imported(path)
    ours = {each.split(".")[1] for each in names if each.startswith("kuberay.")}
    assert all(depth(other) >= depth(name) for other in ours)
    if name in PURE:
        assert not names & NETWORK
