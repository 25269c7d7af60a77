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
    "gateway_settings access_settings aliases fairness_settings jwt_settings limit_settings "
    "usage_settings tracing_settings",
    "pool_settings",
    "engine_settings scaling_settings",
    "strict_model environment scaling",
    "errors model_names setting_names addresses go_json ollama_version deadline quantities "
    "caller_text",
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
    *("replica_state", "sent", "ticket"),
}
# Ray's own autoscaling policy in virtual time.
ALSO_RAY = {"capacity/simulate/policy"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def modules(folder: str = "") -> pytest.MarkDecorator:
    paths = [path for path in MODULES if path.relative_to(PACKAGE).as_posix().startswith(folder)]
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(PACKAGE)))


def parts(path: Path, package: Path = PACKAGE) -> tuple[str, ...]:
    return path.relative_to(package).with_suffix("").parts


def own(path: Path, package: str) -> set[str]:
    """Return the names below `package` that the module at `path` imports."""
    prefix = package + "."
    names = (name for name in imported_modules(path) if name.startswith(prefix))
    return {name.removeprefix(prefix).split(".")[0] for name in names}


def depth(layers: list[str], name: str) -> int:
    """Return the number of the layer; a name beside the layers is above them all."""
    return next((i for i, layer in enumerate(layers) if name in layer.split()), -1)


def above(layers: list[str], name: str, used: set[str]) -> set[str]:
    return {other for other in used if depth(layers, other) < depth(layers, name)}


def wrong_imports(path: Path, package: Path = PACKAGE) -> set[str]:
    """Return the imports of the module at `path` that the layers forbid."""
    names = parts(path, package)
    used = own(path, "serve_app")
    if names[0] == "__init__":
        return set()
    if names[0] not in BESIDE:
        return above(SERVICE, names[0], used) | _of_ray(path, names)
    wrong = used - BESIDE[names[0]] - {names[0]} | _of_ray(path, names)
    if names[0] != "capacity" or names[1] == "__init__":
        return wrong
    wrong |= own(path, "serve_app.dispatch") - PLAYED
    return wrong | above(CAPACITY, names[1], own(path, "serve_app.capacity"))


def _of_ray(path: Path, names: tuple[str, ...]) -> set[str]:
    may = names[0] == "ray_serve" or "/".join(names) in ALSO_RAY
    return set() if may else {"ray"} & {name.split(".")[0] for name in imported_modules(path)}


@modules()
def test_imports_point_down(path: Path) -> None:
    """No module imports from a layer above it, from beside the service, or Ray."""
    assert not wrong_imports(path)


@pytest.mark.parametrize(
    ("module", "line", "name"),
    [
        ("engines/planted.py", "from serve_app.api.app import App", "api"),
        ("api/planted.py", "def late():\n    import serve_app.ray_serve.deployments", "ray_serve"),
        ("access/planted.py", "import ray", "ray"),
        ("fleet/planted.py", "from serve_app.capacity import results", "capacity"),
        ("simulator/planted.py", "from serve_app import errors", "errors"),
        ("capacity/results/planted.py", "from serve_app.capacity.sweep import steps", "sweep"),
        ("capacity/simulate/planted.py", "from serve_app.dispatch import frames", "frames"),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, module: str, line: str, name: str) -> None:
    """An import of each forbidden kind, also within a function."""
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert wrong_imports(path, tmp_path) == {name}


# What only a process with a collector imports, where it is used.
WITH_COLLECTOR = {
    *(
        "build",
        "choice",
        "encoder",
        "exporters",
        "grpc_exporter",
        "http_exporter",
        "otlp",
        "replica",
        "spans",
        "tracer",
    ),
}


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
