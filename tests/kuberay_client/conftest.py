"""Fixtures: a new API server on a real socket for every test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from kuberay.client import RayServiceApi
from kuberay.commands import commands
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.recordings import CRD
from tests.support.kubernetes.schema import Schema
from tests.support.kubernetes.server import ApiServer

Run = Callable[..., Result]

MANIFESTS = Path(__file__).with_name("manifests") / "rayservice.yaml"


@pytest.fixture(scope="session")
def schema() -> Schema | None:
    """The definition of a RayService, if ../shared has it."""
    return Schema(CRD) if CRD.is_file() else None


@pytest.fixture
def server(tmp_path: Path, schema: Schema | None) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, schema) as running:
        yield running


@pytest.fixture
def cluster(server: ApiServer) -> Cluster:
    return server.cluster


@pytest.fixture
def api(server: ApiServer) -> RayServiceApi:
    return RayServiceApi.connect(str(server.kubeconfig()), request_timeout_s=5)


@pytest.fixture
def run(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command against the stand-in; `input` is typed by the user."""
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig()))
    monkeypatch.setenv("COLUMNS", "160")

    def run_command(*arguments: str, input: str | None = None) -> Result:
        result = CliRunner().invoke(commands, arguments, input=input)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run_command


@pytest.fixture
def deployed(run: Run) -> Run:
    """`run`, with the tests' manifests deployed."""
    assert run("deploy", "-f", str(MANIFESTS), "--no-wait").exit_code == 0
    return run


@pytest.fixture
def documents() -> list[dict]:
    """The manifests of the tests."""
    return list(yaml.safe_load_all(MANIFESTS.read_text()))
