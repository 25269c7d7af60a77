"""One paced engine for all load tests: 100 tokens of prompt take 0.1 s, a token 20 ms."""

from collections.abc import Iterator

import pytest

from serve_app.capacity.clients.chat import RequestTarget
from tests.support.service import Simulator, start_simulator


@pytest.fixture(scope="session")
def engine() -> Iterator[Simulator]:
    speed = ("--prefill-tokens-per-s", "1000", "--decode-tokens-per-s", "50", "--slots", "16")
    simulator = start_simulator(*speed)
    yield simulator
    simulator.stop()


@pytest.fixture
def paced(engine: Simulator) -> Simulator:
    engine.reset()
    return engine


@pytest.fixture
def target(paced: Simulator) -> RequestTarget:
    return RequestTarget(paced.url, timeout_s=10)
