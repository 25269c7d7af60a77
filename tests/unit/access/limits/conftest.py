"""Fixtures of the tests of limits: a Redis for all of them, and a clock that is set by hand."""

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from serve_app.access.limits.memory import MemoryStore
from serve_app.access.limits.redis import RedisStore
from serve_app.access.limits.redis_connection import connect
from serve_app.access.limits.store import Store
from tests.support.redis_server import needed, redis_server

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


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis; "" where it is not installed."""
    if shutil.which("redis-server") is None:
        yield ""
        return
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = connect(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", pytest.param("redis", marks=needed)])
async def store(
    request: pytest.FixtureRequest, redis_url: str, clock: Clock
) -> AsyncIterator[Store]:
    """An empty store, of each kind."""
    if request.param == "memory":
        yield MemoryStore(clock)
        return
    client = connect(redis_url)
    await client.flushall()
    store = RedisStore(client, clock, PATIENT_S)
    yield store
    await store.close()
