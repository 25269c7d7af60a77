"""Fixtures of the tests of limits: a store of each kind, and a clock that is set by hand."""

from collections.abc import AsyncIterator

import pytest

from serve_app.access.limits.memory import MemoryStore
from serve_app.access.limits.redis import RedisStore
from serve_app.access.limits.redis_connection import redis_client
from serve_app.access.limits.store import Store
from tests.support.redis_server import needed

PATIENT_S = 10.0  # a loaded machine fails no test


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", pytest.param("redis", marks=needed)])
async def store(
    request: pytest.FixtureRequest, redis_url: str, clock: Clock
) -> AsyncIterator[Store]:
    """An empty store, of each kind."""
    if request.param == "memory":
        yield MemoryStore(clock)
        return
    client = redis_client(redis_url)
    await client.flushall()
    store = RedisStore(client, clock, PATIENT_S)
    yield store
    await store.close()
