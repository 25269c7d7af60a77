"""Faults under load, in both topologies: only streams in progress are lost, and they say so."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from ray import serve

from tests.support import processes
from tests.support.fronts import behind_haproxy
from tests.support.waiting import eventually

pytestmark = behind_haproxy
MESSAGES = [{"role": "user", "content": "tell me more"}]
SLOW = {
    "kind": "simulated",
    "slots": 2,
    "simulated": {"decode_tokens_per_s": 100, "answer_tokens": 9999},
}
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module", params=["direct", "gateway"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"topology": request.param, "engine": SLOW, "queue": 8}


@pytest.fixture(scope="module")
def url(deploy, settings: dict[str, Any]) -> str:
    return deploy(**settings)


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def chat(tokens: int, **more: Any) -> dict[str, Any]:
    return {"model": "smollm2:135m", "messages": MESSAGES, "max_tokens": tokens, **more}


def engines() -> list[int]:
    """The processes of the simulated engines themselves."""
    pids = [pid for worker in workers() for pid in processes.descendants(worker)]
    return [p for p in pids if "-m serve_app.simulator" in processes.own_command(p)]


def engine() -> int:
    (pid,) = engines()
    return pid


def stats(engine: int) -> dict[str, Any]:
    port = processes.command(engine).partition("--port ")[2].split()[0]
    body: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/_sim/stats", trust_env=False).json()
    return body


def was_asked(engine: int) -> bool:
    return PATH in stats(engine)["requests"]


def in_flight(engine: int) -> int:
    return int(stats(engine)["in_flight"])


async def all_asked(client: httpx.AsyncClient) -> None:
    """A chat has reached each engine: HAProxy learns of a replica a little later than Serve.

    Several at once: one after the other, a gateway sends them all over one connection.
    """
    while not all(map(was_asked, engines())):
        await asyncio.gather(*(client.post(PATH, json=chat(1)) for _ in range(4)))


@pytest.mark.parametrize("time", range(3))  # what a dying engine still takes is a matter of luck
async def test_a_killed_engine_costs_only_the_streams_in_progress(
    client: httpx.AsyncClient, time: int
) -> None:
    """Those who wait for a slot, or have no byte yet, are answered when it is back."""
    async with client.stream("POST", PATH, json=chat(500, stream=True)) as answer:
        pieces = answer.aiter_bytes()
        await anext(pieces)
        whole = [asyncio.create_task(client.post(PATH, json=chat(20))) for _ in range(6)]
        await eventually(lambda: in_flight(engine()) == 2)
        os.kill(engine(), signal.SIGKILL)
        rest = b"".join([piece async for piece in pieces])
    assert rest.count(b'data: {"error":') == 1
    assert b"[DONE]" not in rest
    answers = await asyncio.gather(*whole)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert (await client.get("/readyz")).status_code == 200


async def begun(client: httpx.AsyncClient, tokens: int) -> asyncio.Task[bytes]:
    """A stream that has its first bytes; the task gives all of them at its end."""
    first = asyncio.Event()

    async def read() -> bytes:
        got = b""
        async with client.stream("POST", PATH, json=chat(tokens, stream=True)) as answer:
            async for piece in answer.aiter_bytes():
                got += piece
                first.set()
        return got

    task = asyncio.create_task(read())
    await first.wait()
    return task


async def test_a_redeployment_truncates_nothing(
    client: httpx.AsyncClient, deploy, settings: dict[str, Any]
) -> None:
    """Streams run to their end on the old replica while the new one takes over."""
    streams = [await begun(client, 500) for _ in range(2)]
    before = engine()
    await asyncio.to_thread(deploy, **settings, max_tokens=1000)
    for stream in streams:
        assert (await stream).endswith(b"data: [DONE]\n\n")
    assert processes.gone([before], within_s=60)


def replicas() -> dict[str, int]:
    """Of the pool, by state."""
    states = serve.status().applications["default"].deployments["pool"].replica_states
    return {str(state): number for state, number in states.items() if number}


def workers() -> list[int]:
    pids = processes.descendants(os.getpid())
    return [p for p in pids if processes.command(p).startswith("ray::ServeReplica:default:pool")]


TWO = {"min_replicas": 2, "max_replicas": 2}
# So that calls of one conversation come to both replicas.
SPREAD = {"routing": "least_loaded"}


async def test_a_burst_takes_every_slot(
    client: httpx.AsyncClient, deploy, settings: dict[str, Any]
) -> None:
    """Nobody waits at one replica while another one has a free slot."""
    await asyncio.to_thread(deploy, **settings, autoscaling=TWO)
    assert await burst_through_one_proxy(str(client.base_url)) == [2, 2]


async def burst_through_one_proxy(url: str) -> list[int]:
    """Return the streams in progress at each engine after a burst of four.

    Serve starts a new HAProxy for each change of the replicas, and old connections stay with the
    old one. Each balances its own requests only, so a burst shared by two is tried again.
    """
    fresh = httpx.Limits(max_keepalive_connections=0)
    while True:
        proxies = haproxies()
        assert proxies
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, limits=fresh) as c:
            await all_asked(c)
            streams = await asyncio.gather(*(begun(c, 500) for _ in range(4)))
            spread = [in_flight(engine) for engine in engines()]
            for stream in streams:
                stream.cancel()
            await asyncio.wait(streams)
        if haproxies() == proxies:
            return spread


def haproxies() -> set[int]:
    pids = processes.descendants(os.getpid())
    return {pid for pid in pids if "haproxy -db -f" in processes.own_command(pid)}


async def test_a_killed_replica_costs_only_the_streams_in_progress(
    client: httpx.AsyncClient, deploy, settings: dict[str, Any]
) -> None:
    """They break off or say so; what has no byte yet is asked of another replica."""
    await asyncio.to_thread(deploy, **settings, **SPREAD, autoscaling=TWO)
    await all_asked(client)
    streams = [await begun(client, 500) for _ in range(2)]
    whole = [asyncio.create_task(client.post(PATH, json=chat(100))) for _ in range(6)]
    await eventually(lambda: sum(map(in_flight, engines())) == 4)
    os.kill(workers()[0], signal.SIGKILL)
    answers = await asyncio.gather(*whole)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert all(answer.json()["usage"]["completion_tokens"] == 100 for answer in answers)
    assert sorted([await ended_well(stream) for stream in streams]) == [False, True]
    await eventually(lambda: replicas() == {"RUNNING": 2}, within_s=30)


async def ended_well(stream: asyncio.Task[bytes]) -> bool:
    # In the direct topology the connection is gone with its replica.
    with suppress(httpx.TransportError):
        return (await stream).endswith(b"data: [DONE]\n\n")
    return False


FEWER = {
    "initial_replicas": 2,
    "max_replicas": 2,
    "target_ongoing_requests": 8,
    "downscale_delay_s": 8,  # not before the streams have begun
    "look_back_period_s": 1,
    "metrics_interval_s": 0.5,
}


async def test_scaling_down_truncates_nothing(
    client: httpx.AsyncClient, deploy, settings: dict[str, Any]
) -> None:
    """A replica that must go finishes its streams first."""
    await asyncio.to_thread(serve.delete, "default")  # initial_replicas are for a new one
    enough = {**settings, "engine": {**SLOW, "slots": 4}}
    await asyncio.to_thread(deploy, **enough, **SPREAD, autoscaling=FEWER)
    await all_asked(client)
    streams = [await begun(client, 1300)]
    while not all(map(in_flight, engines())):  # which replica is the router's choice
        streams.append(await begun(client, 1300))
    await eventually(lambda: replicas().get("RUNNING") == 1, within_s=30)
    assert not any(stream.done() for stream in streams)
    for stream in streams:
        assert (await stream).endswith(b"data: [DONE]\n\n")
    await eventually(lambda: replicas() == {"RUNNING": 1}, within_s=60)


async def test_deletion_waits_for_answers(client: httpx.AsyncClient) -> None:
    """Taking the application down lets a running answer end."""
    stream = await begun(client, 300)
    await asyncio.to_thread(serve.delete, "default")
    assert (await stream).endswith(b"data: [DONE]\n\n")
