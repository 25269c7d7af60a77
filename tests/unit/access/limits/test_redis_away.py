"""A Redis that is slow, wrong, absent or restarted costs no request more than its bound."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.access.limits.limiter import build_limiter
from serve_app.access.limits.quotas import Quota
from serve_app.access.limits.redis import REST_S, RedisStore
from serve_app.access.limits.redis_connection import redis_client
from serve_app.access.limits.store import QuotaClaim, StoreAway
from serve_app.errors import SettingsError
from serve_app.limit_settings import LimitSettings
from tests.support.redis_server import StallingProxy, needed, redis_server
from tests.support.waiting import timers
from tests.unit.access.limits.conftest import PATIENT_S

pytestmark = needed
KEY = (Quota("k:ada", tokens=100),)
SOON_S = 0.02


def claim(lease: str = "a", tokens: float = 10) -> QuotaClaim:
    return QuotaClaim(KEY, tokens, lease, "2026-11-30")


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What Serve's logger is told."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.fixture
async def proxy(redis_url: str, tmp_path: Path) -> AsyncIterator[StallingProxy]:
    async with StallingProxy(tmp_path / "proxy.sock", redis_url) as proxy:
        yield proxy


async def test_a_slow_store_costs_a_request_its_bound(proxy: StallingProxy, log: list[str]) -> None:
    """The request goes on without it, and the log says so once."""
    store = RedisStore(redis_client(proxy.url), wait_s=SOON_S)
    proxy.stall()
    with pytest.raises(StoreAway):
        await store.reserve(claim())
    with pytest.raises(StoreAway):
        await store.reserve(claim())
    assert [line for line in log if "lost the store of limits" in line] == log
    assert len(log) == 1
    proxy.go_on()
    await store.close()


async def test_nothing_is_asked_for_a_second_after_a_failure(proxy: StallingProxy) -> None:
    """Requests in that time are decided without a wait and without a byte."""
    store = RedisStore(redis_client(proxy.url), wait_s=PATIENT_S)
    await store.reserve(claim("before"))
    store._wait_s = SOON_S
    proxy.stall()
    with pytest.raises(StoreAway):
        await store.reserve(claim())
    requests, loop = proxy.requests, asyncio.get_running_loop()
    began = loop.time()
    for _ in range(100):
        with pytest.raises(StoreAway):
            await store.reserve(claim())
    assert loop.time() - began < REST_S
    assert proxy.requests == requests
    proxy.go_on()
    if store._sending:  # the late answer gives cause for a refund
        await asyncio.wait({store._sending})
    assert store._batch.settlements
    assert proxy.requests == requests
    await store.close()


async def test_requests_that_wait_for_their_turn_fail_together(proxy: StallingProxy) -> None:
    """Those that are not sent yet, because an earlier call is under way, do not wait longer."""
    store = RedisStore(redis_client(proxy.url), wait_s=PATIENT_S)
    await store.reserve(claim("before"))
    store._wait_s = SOON_S
    proxy.stall()
    sent = asyncio.create_task(store.reserve(claim("sent")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(store.reserve(claim(f"{number}"))) for number in range(3)]
    outcomes = await asyncio.gather(sent, *waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreAway] * 4
    proxy.go_on()
    await store.close()


async def test_a_decision_that_comes_too_late_is_taken_back(
    redis_url: str, proxy: StallingProxy, client: object
) -> None:
    """The request went on without its reservation, which would never be settled."""
    store = RedisStore(redis_client(proxy.url), wait_s=SOON_S)
    proxy.stall()
    with pytest.raises(StoreAway):
        await store.reserve(claim(tokens=100))
    proxy.go_on()
    await asyncio.wait({store._sending}) if store._sending else None
    store._rests_until = 0.0  # instead of a second of waiting
    await store.close()
    fresh = RedisStore(redis_client(redis_url), wait_s=PATIENT_S)
    assert (await fresh.reserve(claim("b", 99))).granted
    await fresh.close()


async def test_a_caller_who_leaves_meanwhile_gets_its_reservation_back(
    redis_url: str, proxy: StallingProxy, client: object
) -> None:
    """No engine has seen the request."""
    store = RedisStore(redis_client(proxy.url), wait_s=PATIENT_S)
    proxy.stall()
    request = asyncio.create_task(store.reserve(claim(tokens=100)))
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait({request})
    proxy.go_on()
    await store.close()
    fresh = RedisStore(redis_client(redis_url), wait_s=PATIENT_S)
    assert (await fresh.reserve(claim("b", 99))).granted
    await fresh.close()


async def test_a_caller_who_leaves_as_the_decision_comes_gets_its_reservation_back(
    redis_url: str, client: object
) -> None:
    """In the turn of the event loop between the decision and the request's next step."""
    store = RedisStore(redis_client(redis_url), wait_s=PATIENT_S)
    decide = store._script

    async def decide_and_leave(**arguments: Any) -> Any:
        decision = await decide(**arguments)
        asyncio.get_running_loop().call_soon(request.cancel)
        return decision

    store._script = decide_and_leave  # type: ignore[assignment]
    request = asyncio.create_task(store.reserve(claim(tokens=100)))
    await asyncio.wait({request})
    assert request.cancelled()
    store._script = decide
    assert (await store.reserve(claim("b", 99))).granted
    await store.close()


async def test_what_is_no_redis_is_a_failure(tmp_path: Path, log: list[str]) -> None:
    """Such as a web server at its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(answer, tmp_path / "web.sock")
    store = RedisStore(redis_client(f"unix://{tmp_path / 'web.sock'}"), wait_s=PATIENT_S)
    with pytest.raises(StoreAway):
        await store.reserve(claim())
    await store.close()
    server.close()
    assert "lost the store of limits" in log[0]


async def test_an_absent_redis_is_a_failure(tmp_path: Path) -> None:
    """Nothing listens there."""
    store = RedisStore(redis_client(f"unix://{tmp_path / 'nothing.sock'}"), wait_s=PATIENT_S)
    with pytest.raises(StoreAway):
        await store.reserve(claim())
    await store.close()


async def test_the_password_comes_from_its_file_at_every_connection(
    tmp_path: Path, log: list[str]
) -> None:
    """A wrong one is a failure, and no log shows it; the right one works as soon as it is there."""
    file = tmp_path / "password"
    with redis_server(tmp_path, "--requirepass", "right") as url:
        file.write_text("wrong-secret\n")
        store = RedisStore(redis_client(url, file), wait_s=PATIENT_S)
        with pytest.raises(StoreAway):
            await store.reserve(claim())
        assert log
        assert not any("secret" in line for line in log)
        file.write_text("right\n")
        store._rests_until = 0.0  # instead of a second of waiting
        assert (await store.reserve(claim())).granted
        assert "reached the store of limits again" in log
        await store.close()


async def test_a_redis_that_restarts_empty_counts_anew(tmp_path: Path) -> None:
    """The script and the connection come back without a failure."""
    with redis_server(tmp_path) as url:
        store = RedisStore(redis_client(url), wait_s=PATIENT_S)
        first = claim(tokens=100)
        assert (await store.reserve(first)).granted
        assert not (await store.reserve(claim("b", 1))).granted
    with redis_server(tmp_path):
        assert (await store.reserve(claim("c", 50))).granted
        store.settle(first, 100)  # of before: a bucket never holds more than its capacity
        assert (await store.reserve(claim("d", 100))).granted
        assert not (await store.reserve(claim("e", 1))).granted
        await store.close()


async def test_a_full_redis_is_a_failure(tmp_path: Path) -> None:
    """One that must not evict refuses to write."""
    with redis_server(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as url:
        store = RedisStore(redis_client(url), wait_s=PATIENT_S)
        with pytest.raises(StoreAway):
            await store.reserve(claim())
        await store.close()


async def test_settlements_are_joined(redis_url: str, client: object) -> None:
    """Those of many requests travel as one call; the counts are those of all."""
    store = RedisStore(redis_client(redis_url), wait_s=PATIENT_S)
    claims = [claim(f"{i}", 10) for i in range(10)]
    for one in claims:
        await store.reserve(one)
    for one in claims:
        store.settle(one, 5)
    assert len(store._batch.settlements) == 10
    await store.flush()
    assert not store._batch
    assert (await store.reserve(claim("last", 50))).granted
    await store.close()


@pytest.mark.asyncio(loop_scope="function")
async def test_no_timer_outlives_the_store(redis_url: str, client: object) -> None:
    """A request that ends after it is closed keeps its reservation."""
    store = RedisStore(redis_client(redis_url), wait_s=PATIENT_S)
    await store.reserve(claim())
    await store.close()
    store.settle(claim(), 5)
    assert not timers()


def test_a_password_that_can_not_be_read_ends_the_start(tmp_path: Path) -> None:
    """No connection would ever work; the sentence names the file and shows none of it."""
    path = tmp_path / "password"
    limits = {"store": "redis", "redis_url": "redis://h", "redis_password_file": path}
    with pytest.raises(SettingsError, match="No such file"):
        build_limiter(LimitSettings.model_validate(limits))
    path.write_bytes(b"secret\xff")
    with pytest.raises(SettingsError, match="it is not UTF-8") as refused:
        build_limiter(LimitSettings.model_validate(limits))
    assert "secret" not in str(refused.value)
