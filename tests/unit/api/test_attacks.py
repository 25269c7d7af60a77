"""Attacks and accidents around keys and limits: what callers get, and what reaches the engine."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from serve_app.access.limits import limiter, redis
from serve_app.access.limits.days import Calendar
from serve_app.access.limits.memory import MemoryStore
from serve_app.errors import SettingsError
from tests.support.redis_server import StallingProxy, needed, redis_server
from tests.support.service import Service, Simulator, serving

CHAT = "/v1/chat/completions"
BODY = {
    "model": "smollm2:135m",
    "messages": [{"role": "user", "content": "tell me more"}],
    "max_tokens": 12,
}
ADA = {"authorization": "Bearer sk-ada"}


async def ask(service: Service, **headers: str) -> int:
    answer = await service.post(CHAT, json=BODY, headers={**ADA, **headers})
    return answer.status_code


def keys(folder: Path, limits: str = "") -> Path:
    file = folder / "keys"
    file.write_text(f"ada: {{key: sk-ada{limits and ', ' + limits}}}\n")
    return file


def folder(path: Path) -> None:
    path.mkdir()


def huge(path: Path) -> None:
    path.write_bytes(b"ada: sk-ada\n" * 870_000)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [folder, os.mkfifo, huge], ids=["folder", "pipe", "10 MB"])
async def test_a_service_does_not_start_with_what_is_no_file_of_keys(
    simulator: Simulator, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """It says why, and serves nobody."""
    make(tmp_path / "keys")
    with pytest.raises(SettingsError, match=r"api_keys_file: .*/keys can.t be read"):
        async with serving(simulator, api_keys_file=tmp_path / "keys"):
            pass
    assert simulator.reached == {}


HEADERS = [
    *("x-session-id", "x-request-id", "x-priority", "x-request-timeout-ms", "content-type"),
    *("x-stainless-timeout", "anthropic-version", "anthropic-beta", "origin", "cookie", "accept"),
]


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_a_header_of_100_kb_reaches_no_engine(
    service: Service, simulator: Simulator, name: str, path: str
) -> None:
    """The request is refused or answered without it, and its line in the log stays short."""
    answer = await service.post(path, json=BODY, headers={name: "7" * 100_000})
    assert answer.status_code in (200, 400, 403)
    assert len(answer.content) < 2000
    assert len(str(service.noted.last.fields())) < 2000
    sent = simulator.stats()["history"]
    assert all(len(value) < 1000 for request in sent for _, value in request["headers"])
    assert simulator.reached == ({path: 1} if answer.status_code == 200 else {})


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@needed
async def test_replicas_that_race_for_the_last_tokens_serve_one_request(
    simulator: Simulator, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of forty at the same moment, half of them in each replica."""
    monkeypatch.setattr(redis.RedisStore.__init__, "__defaults__", (None, 10.0))  # patient
    limits = {"store": "redis", "redis_url": redis_url, "reserve": "max"}
    settings = {"api_keys_file": keys(tmp_path, "tokens_per_day: 55"), "limits": limits}
    async with serving(simulator, **settings) as one, serving(simulator, **settings) as two:
        statuses = await asyncio.gather(
            *[ask(replica) for _ in range(20) for replica in (one, two)]
        )
    assert sorted(statuses) == [200, *[429] * 39]
    assert simulator.reached == {CHAT: 1}


async def test_a_clock_that_jumps_grants_no_more_than_a_bucket(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back by a day, forward by a year."""
    now = 1_000_000.0

    def clock() -> float:
        return now

    monkeypatch.setattr(limiter, "MemoryStore", partial(MemoryStore, clock))
    monkeypatch.setattr(limiter, "Calendar", partial(Calendar, clock=clock))
    file = keys(tmp_path, "requests_per_minute: 2, tokens_per_day: 100000")
    async with serving(simulator, api_keys_file=file) as service:
        assert [await ask(service) for _ in range(3)] == [200, 200, 429]
        now -= 86_400
        assert await ask(service) == 429
        now += 30
        assert [await ask(service) for _ in range(2)] == [200, 429]
        now += 365 * 86_400
        assert [await ask(service) for _ in range(3)] == [200, 200, 429]
    assert simulator.reached == {CHAT: 5}


@asynccontextmanager
async def web_server(path: Path) -> AsyncIterator[str]:
    """What is no Redis."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        yield f"unix://{path}"


@needed
@pytest.mark.parametrize("kind", ["slow", "wrong", "absent"])
@pytest.mark.parametrize(("policy", "status"), [("allow", 200), ("refuse", 503)])
async def test_a_store_that_is_away_allows_or_refuses(
    simulator: Simulator, redis_url: str, tmp_path: Path, kind: str, policy: str, status: int
) -> None:
    """As the setting says; what is refused reaches nothing, and either is marked for the metric."""
    async with AsyncExitStack() as stack:
        url = f"unix://{tmp_path / 'absent'}"
        if kind == "wrong":
            url = await stack.enter_async_context(web_server(tmp_path / "web"))
        elif kind == "slow":
            proxy = StallingProxy(tmp_path / "proxy", redis_url)
            url = (await stack.enter_async_context(proxy)).url
        limits = {"store": "redis", "redis_url": url, "on_store_failure": policy}
        file = keys(tmp_path, "requests_per_minute: 1")
        service = await stack.enter_async_context(
            serving(simulator, api_keys_file=file, limits=limits)
        )
        if kind == "slow":
            proxy.stall()
        assert [await ask(service) for _ in range(3)] == [status] * 3
        assert service.noted.last.is_uncounted
        assert simulator.reached == ({CHAT: 3} if policy == "allow" else {})
        if kind == "slow":
            proxy.go_on()


@needed
async def test_a_store_that_restarts_empty_counts_anew(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request before, one after it, and no failure."""
    monkeypatch.setattr(redis.RedisStore.__init__, "__defaults__", (None, 10.0))  # patient
    limits = {"redis_url": f"unix://{tmp_path / 'redis.sock'}"}
    settings = {
        "api_keys_file": keys(tmp_path, "requests_per_minute: 1"),
        "limits": {"store": "redis", "on_store_failure": "refuse", **limits},
    }
    async with AsyncExitStack() as stack:
        with redis_server(tmp_path):
            service = await stack.enter_async_context(serving(simulator, **settings))
            assert [await ask(service) for _ in range(2)] == [200, 429]
        with redis_server(tmp_path):
            assert [await ask(service) for _ in range(2)] == [200, 429]
            await stack.aclose()
    assert simulator.reached == {CHAT: 2}
