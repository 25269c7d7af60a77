"""A Redis for all tests of limits and usage."""

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from serve_app.access.limits.redis_connection import redis_client
from tests.support.redis_server import redis_server


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
    client = redis_client(redis_url)
    await client.flushall()
    yield client
    await client.aclose()
