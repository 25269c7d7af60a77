"""Queues tell each other whom they have served, through a real Redis."""

import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from serve_app.access.limits.redis_connection import redis_client
from serve_app.access.service_exchange import MAX_KEYS, ServiceExchange, decode, encode_entry
from serve_app.engines.base import Served
from tests.support.redis_server import needed, redis_server

pytestmark = needed
STREAM = "served:pool"


def served(key: str, service: float = 10.0) -> Served:
    return Served(1, "", key, 1.0, 1.0, service)


class Queue:
    """Hands out `served`, and keeps what it is told."""

    def __init__(self) -> None:
        self.served: list[Served] = []
        self.credited: list[Served] = []
        self.ages: list[float] = []

    def take_served(self) -> list[Served]:
        taken, self.served = self.served, []
        return taken

    def credit(self, served: Iterable[Served], age_s: float) -> None:
        self.credited += served
        self.ages.append(age_s)


class Replica:
    """One process with one queue."""

    def __init__(self, url: str, pool: str = "pool") -> None:
        self.queue = Queue()
        self.exchange = ServiceExchange(redis_client(url), {pool: self.queue})

    async def serve(self, *keys: str) -> None:
        self.queue.served += map(served, keys)
        await self.exchange.exchange()


@pytest.fixture
async def replicas(client: Redis, redis_url: str) -> AsyncIterator[list[Replica]]:
    """Two of one pool, and one of another."""
    replicas = [Replica(redis_url), Replica(redis_url), Replica(redis_url, "other")]
    yield replicas
    for replica in replicas:
        await replica.exchange.close()


async def test_a_queue_is_told_of_the_others_once(replicas: list[Replica]) -> None:
    """Of its own pool alone, and never of itself."""
    first, second, other = replicas
    await first.serve("ada", "bob")
    for replica in (*replicas, *replicas):
        await replica.exchange.exchange()
    assert second.queue.credited == [served("ada"), served("bob")]
    assert all(0 <= age < 10 for age in second.queue.ages)
    assert first.queue.credited == other.queue.credited == []
    await second.serve("ada")
    await first.exchange.exchange()
    assert first.queue.credited == [served("ada")]


async def test_a_replica_that_starts_is_told_of_the_past(
    replicas: list[Replica], client: Redis
) -> None:
    """By its age on Redis's clock."""
    seconds, _ = await client.time()
    text = encode_entry("another", [served("ada")])
    await client.xadd(STREAM, {"served": text}, id=f"{1000 * (seconds - 40)}-0")
    await replicas[0].exchange.exchange()
    assert replicas[0].queue.credited == [served("ada")]
    assert 39 < replicas[0].queue.ages[0] < 60


async def test_what_redis_keeps_is_bounded(replicas: list[Replica], client: Redis) -> None:
    """The keys with the most service, for some minutes."""
    first, second, _ = replicas
    first.queue.served = [served(str(number), 1.0 + number) for number in range(3 * MAX_KEYS)]
    await first.exchange.exchange()
    await second.exchange.exchange()
    services = [part.service for part in second.queue.credited]
    assert services == [float(3 * MAX_KEYS - number) for number in range(MAX_KEYS)]
    assert 0 < await client.ttl(STREAM) <= 600


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'["x", 7]',
        b'["x", [7]]',
        b'["x", [[1, "", "ada", 1, 1]]]',
        b'["x", [[1, "", "ada", 1, 1, NaN]]]',
        b'["x", [[1, "", "ada", 1, 1, Infinity]]]',
        b'["x", [[1, "", "ada", 1, 1, -5]]]',
        b'["x", [[1, "", "ada", 0, 1, 5]]]',
        b'["x", [[7, "", "ada", 1, 1, 5]]]',
        b'["x", [[1, "", "ada", 1, 1, "many"]]]',
        b"\xff",
    ],
)
def test_entries_that_can_not_be_read_count_nothing(text: bytes) -> None:
    """Whoever wrote them."""
    assert decode(text)[1] == []


@pytest.mark.parametrize("name", ["jwt:a b", 'quo"te', "\u00e9", "\udcff", "\n"])
def test_names_come_back_as_they_were(name: str) -> None:
    """Also those that are no text."""
    assert decode(encode_entry("x", [served(name)]).encode()) == ("x", [served(name)])


async def test_a_stream_of_another_kind_stops_nothing(
    replicas: list[Replica], client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, and used as soon as it can be."""
    await client.set(STREAM, "wrong")
    with caplog.at_level(logging.INFO, "ray.serve"):
        await replicas[0].serve("ada")
        await replicas[0].serve("ada")
        await client.delete(STREAM)
        await replicas[0].serve("bob")
    await replicas[1].exchange.exchange()
    assert replicas[1].queue.credited == [served("bob")]
    assert len(caplog.records) == 2


async def test_a_redis_that_starts_empty_is_used_at_once(tmp_path: Path) -> None:
    """Nothing waits for it meanwhile, and what was served is not told later."""
    with redis_server(tmp_path) as url:
        first, second = Replica(url), Replica(url)
        await first.serve("ada")
        await second.exchange.exchange()
    await first.serve("lost")
    with redis_server(tmp_path):
        await first.serve("bob")
        await second.exchange.exchange()
        for replica in (first, second):
            await replica.exchange.close()
    assert second.queue.credited == [served("ada"), served("bob")]


async def test_a_clock_that_goes_back_stops_nothing(replicas: list[Replica], client: Redis) -> None:
    """A Redis may begin anew on another machine, whose clock is behind."""
    first, second, _ = replicas
    second.exchange._streams[0].last = "9999999999999-0"
    await second.exchange.exchange()
    await first.serve("ada")
    await second.exchange.exchange()
    assert second.queue.credited == [served("ada")]
