"""Imports point down only, and Ray stays in its folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import imported_modules

PACKAGE = Path(__file__).parents[2] / "serve_app"
# From the top. A module may import its own layer and those below.
SERVICE = [
    "__main__ settings_table",
    "launcher",
    "ray_serve",
    "api dispatch fleet tracing",
    "access",
    "engines",
    "overrides",
    "setting_errors",
    "settings",
    "gateway_settings aliases jwt_settings limit_settings usage_settings tracing_settings",
    "pool_settings",
    "engine_settings scaling_settings",
    "strict_model environment scaling",
    "errors model_names setting_names addresses go_json ollama_version deadline quantities",
]
CAPACITY = [
    "__main__",
    "commands",
    "experiment simulate planning",
    "service_under_test sweep",
    "clients",
    "workload",
    "results",
]
# Beside the service: nothing of it imports these, and they import no more of it than this.
BESIDE = {
    "capacity": {
        *("dispatch", "engines", "ray_serve", "settings", "pool_settings", "scaling_settings"),
        *("environment", "errors", "quantities", "scaling"),
    },
    "simulator": {"go_json", "ollama_version"},
}
# The part of `dispatch` that the simulator plays: no event loop, no connection.
PLAYED = {
    *("fair_queue", "fleet_view", "learning", "model_copies", "placement", "prefixes", "rates"),
    *("replica_state", "sent"),
}
# Ray's own autoscaling policy in virtual time.
ALSO_RAY = {"capacity/simulate/policy.py"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def modules(folder: str = "") -> pytest.MarkDecorator:
    paths = [path for path in MODULES if path.relative_to(PACKAGE).as_posix().startswith(folder)]
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(PACKAGE)))


def parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def own(path: Path, package: str) -> set[str]:
    """Return the names below `package` that the module at `path` imports."""
    prefix = package + "."
    names = (name for name in imported_modules(path) if name.startswith(prefix))
    return {name.removeprefix(prefix).split(".")[0] for name in names}


def depth(layers: list[str], name: str) -> int:
    return next(i for i, layer in enumerate(layers) if name in layer.split())


@modules()
def test_the_service_imports_downwards(path: Path) -> None:
    """No module knows of those above it, or beside the service."""
    name, used = parts(path)[0], own(path, "serve_app")
    if name in BESIDE:
        assert used <= BESIDE[name] | {name}
    elif name != "__init__":
        assert max((depth(SERVICE, name) - depth(SERVICE, other) for other in used), default=0) <= 0


@modules("capacity/")
def test_capacity_plays_policies_alone(path: Path) -> None:
    """Of the way to an engine, no more than who is next, and where."""
    assert own(path, "serve_app.dispatch") <= PLAYED


@modules("capacity/")
def test_capacity_imports_downwards(path: Path) -> None:
    """From the commands to the results."""
    name, used = parts(path)[1], own(path, "serve_app.capacity")
    if name != "__init__":
        assert all(depth(CAPACITY, other) >= depth(CAPACITY, name) for other in used)


@modules()
def test_ray_is_imported_in_its_folder(path: Path) -> None:
    """And in one module that plays its policy."""
    if parts(path)[0] != "ray_serve" and str(path.relative_to(PACKAGE)) not in ALSO_RAY:
        assert not {name for name in imported_modules(path) if name.split(".")[0] == "ray"}


# What only a process with a collector imports, where it is used.
WITH_COLLECTOR = {"build", "exporters", "otlp", "replica", "tracer"}


def test_opentelemetry_costs_nothing_where_it_is_off() -> None:
    """Its packages, and the modules that need them, are imported within functions alone."""
    needing = {f"serve_app.tracing.{name}" for name in WITH_COLLECTOR}
    for path in MODULES:
        is_needing = ".".join(("serve_app", *parts(path))) in needing
        if is_needing or not {"opentelemetry", "tracing"} & set(
            re.findall(r"\w+", path.read_text())
        ):
            continue
        names = imported_modules(path, within_functions=False)
        assert not {name for name in names if name.startswith("opentelemetry.")}, path
        assert not {name for name in names if ".".join(name.split(".")[:3]) in needing}, path


def test_importing_the_package_is_cheap() -> None:
    """`import serve_app` loads neither Ray nor pydantic: engines' children import it too."""
    check = "import serve_app, sys; assert not {'ray', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
