"""The Dockerfile by its linter and its pins; the `ray` that is quick where KubeRay waits for it."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from tests.support.manifests import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SHIM = ROOT / "kuberay" / "image" / "ray"


def test_the_dockerfile_is_clean() -> None:
    """hadolint accepts it; exceptions are explained in the Dockerfile."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_base_is_pinned() -> None:
    """The base image is pinned, and a build argument replaces it."""
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}


def test_nothing_in_it_is_pinned_twice_and_differently() -> None:
    """The Makefile pins the embedded model, and pyproject.toml everything else."""
    pins = re.findall(r"[\w-]+==[\w.]+", DOCKERFILE)
    assert pins
    assert all(pin in (ROOT / "Makefile").read_text() for pin in pins)


def test_it_runs_as_a_user() -> None:
    """The image runs as the user of the manifests."""
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1] == "1000"
    assert "useradd --uid 1000" in DOCKERFILE


def test_the_code_is_a_layer_after_the_dependencies() -> None:
    """A change of code reinstalls nothing, because the install stage has no code."""
    installs, _, runs = DOCKERFILE.partition("\nFROM ${BASE}\n")
    assert re.findall(r"^COPY (.+)$", installs, re.MULTILINE) == [
        "pyproject.toml constraints.txt ./"
    ]
    assert runs.index("COPY --from=dependencies") < runs.index("COPY . .")


class Shim:
    """A copy of the shim with a stub in place of the real `ray`."""

    def __init__(self, folder: Path) -> None:
        real = folder / "real"
        real.write_text('#!/bin/sh\necho "real: $*"\n')
        real.chmod(0o755)
        self._path = folder / "ray"
        self._path.write_text(SHIM.read_text().replace("/opt/venv/bin/ray", str(real)))
        self._path.chmod(0o755)

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], **env}
        return subprocess.run([self._path, *arguments], capture_output=True, text=True, env=env)


@pytest.fixture
def ray(tmp_path: Path) -> Shim:
    return Shim(tmp_path)


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with closing(socket.create_server((request.param, 0), family=family)) as server:
        yield server


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def test_a_head_that_listens_is_healthy(ray: Shim, listener: socket.socket) -> None:
    """The health check is a TCP connection over IPv4 or IPv6, without Ray."""
    done = ray("health-check", "--address", address(listener))
    assert (done.returncode, done.stdout) == (0, "")


def test_a_head_that_does_not_is_not(ray: Shim, listener: socket.socket) -> None:
    """A closed port is unhealthy."""
    where = address(listener)
    listener.close()
    assert ray("health-check", "--address", where).returncode != 0


@pytest.mark.parametrize("where", ["", ":", "127.0.0.1", "127.0.0.1:", "nowhere.invalid:6379"])
def test_what_is_no_address_is_not_healthy(ray: Shim, where: str) -> None:
    """Malformed addresses are unhealthy."""
    assert ray("health-check", "--address", where).returncode != 0


def test_a_head_that_does_not_answer_costs_two_seconds(ray: Shim) -> None:
    """A check without an answer, as from a lost host, ends after two seconds."""
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        began = monotonic()
        done = ray("health-check", "--address", address(full))
        assert done.returncode != 0
        assert 1.5 < monotonic() - began < 10
        for client in waiting:
            client.close()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["start", "--head"],
        ["health-check"],
        ["health-check", "--address=127.0.0.1:1"],
        ["health-check", "--component", "x"],
        ["health-check", "--address", "127.0.0.1:1", "--skip-version-check"],
    ],
)
def test_everything_else_is_rays(ray: Shim, arguments: list[str]) -> None:
    """Other arguments are passed to Ray unchanged."""
    done = ray(*arguments)
    assert (done.returncode, done.stdout) == (0, f"real: {' '.join(arguments)}\n")


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_with_tls_the_check_is_rays(ray: Shim, value: str) -> None:
    """With TLS the check is passed to Ray, because a connection alone proves little."""
    done = ray("health-check", "--address", "127.0.0.1:1", RAY_USE_TLS=value)
    assert done.stdout == "real: health-check --address 127.0.0.1:1\n"
