"""Imports point down only, and Ray stays at the top."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "serve_app"
# From the top: a module may import what stands further down, or its own layer.
LAYERS = [
    ["__main__", "local_proxy", "screen", "serve_run", "settings_table"],
    ["application"],
    ["deployments"],
    ["metrics", "request_log", "replica", "gateway", "ingress", "request_router"],
    ["dispatch", "api", "lending", "leases", "listener", "crossing", "capacity"],
    ["relay", "engines", "simulator"],
    ["routing", "overrides"],
    ["settings"],
    ["names", "errors", "gotext", "haproxy", "http_protocol", "deadline", "addresses"],
]
RAY = {
    "application.py",
    "deployments.py",
    "gateway.py",
    "ingress.py",  # Serve's own extension point
    "metrics.py",
    "request_log.py",  # its handlers
    "serve_run.py",
    "request_router.py",  # Serve's own extension point
    "capacity/simulate/policy.py",  # Ray's own autoscaling policy, in virtual time
    "capacity/experiment/watch.py",  # what a live Ray Serve is doing
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def depth(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """No module knows of those above it; only the top knows Ray."""
    name = top(path)
    if name == "__init__":
        return
    ours = {n.split(".")[1] for n in imported(path) if n.startswith("serve_app.")}
    assert all(depth(other) >= depth(name) for other in ours)
    if str(path.relative_to(PACKAGE)) not in RAY:
        assert not {n for n in imported(path) if n.split(".")[0] == "ray"}


def test_importing_the_package_is_cheap() -> None:
    """`import serve_app` loads neither Ray nor pydantic: engines' children import it too."""
    check = "import serve_app, sys; assert not {'ray', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
