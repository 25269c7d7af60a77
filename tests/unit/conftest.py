"""Fixtures of the unit tests: one simulated engine for all, one service for each."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.issuer import Issuer
from tests.support.service import Service, Simulator, serving, start_simulator


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names a proxy where nobody listens, without exceptions."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.fixture(scope="session")
def shared_simulator() -> Iterator[Simulator]:
    simulator = start_simulator("--decode-tokens-per-s", "2000", "--slots", "4")
    yield simulator
    simulator.stop()


@pytest.fixture
def simulator(shared_simulator: Simulator) -> Simulator:
    shared_simulator.fault(kind="none")
    shared_simulator.reset()
    return shared_simulator


@pytest.fixture(scope="session")
async def shared_service(shared_simulator: Simulator) -> AsyncIterator[Service]:
    async with serving(shared_simulator) as running:
        yield running


@pytest.fixture
def service(shared_service: Service, simulator: Simulator) -> Service:
    """With default settings, in front of `simulator`."""
    return shared_service


@pytest.fixture(scope="session")
def shared_issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.stop()


@pytest.fixture
def issuer(shared_issuer: Issuer, tmp_path: Path) -> Issuer:
    """With one key, which is also in `issuer.file`."""
    shared_issuer.reset()
    shared_issuer.file = tmp_path / "jwks.json"
    shared_issuer.file.write_bytes(shared_issuer.document)
    return shared_issuer
