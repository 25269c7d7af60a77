"""The client's imports point down only."""

from pathlib import Path

import pytest

from tests.support.imports import imported_modules

PACKAGE = Path(__file__).parents[2] / "kuberay"
# From the top: a module may import what stands further down, or its own layer.
LAYERS = [
    ["__main__"],
    ["commands"],
    ["client"],
    ["logs", "changes"],
    ["status"],
    ["access"],
    ["errors"],
]
# What decides knows neither network nor clock.
SENDING = ("clusters", "deletion", "manifests")
PURE = [
    *PACKAGE.joinpath("status").glob("[!w]*.py"),
    PACKAGE / "status" / "waiting.py",
    *(path for path in PACKAGE.joinpath("changes").glob("*.py") if path.stem not in SENDING),
]
IMPURE = ("kubernetes", "urllib3", "kuberay.access", "time", "threading", "socket")


def depth(name: str) -> int:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), len(LAYERS))


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_down(path: Path) -> None:
    """No module imports from a layer above it."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if name == "__init__":
        return
    ours = {
        module.split(".")[1] for module in imported_modules(path) if module.startswith("kuberay.")
    }
    assert all(depth(other) >= depth(name) for other in ours)


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.stem)
def test_policies_are_pure(path: Path) -> None:
    """Rules, waiting and edits are functions of values."""
    assert not [module for module in imported_modules(path) if module.startswith(IMPURE)]
