"""One collector, and one service whose every request is traced, for all tests here."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.otlp import Collector, collector, sender
from tests.support.service import Service, Simulator, serving


@pytest.fixture(scope="session")
def shared_collector() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture
def received(shared_collector: Collector) -> Collector:
    shared_collector.clear()
    return shared_collector


@pytest.fixture(scope="session")
async def shared_traced(
    shared_simulator: Simulator, shared_collector: Collector
) -> AsyncIterator[Service]:
    async with serving(shared_simulator, sender=sender(shared_collector.http)) as running:
        yield running


@pytest.fixture
def traced(shared_traced: Service, simulator: Simulator, received: Collector) -> Service:
    """A service whose spans go to `received`."""
    return shared_traced
