"""What only the gateway does: several pools, pools without a replica, replicas that die."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from ray import serve

from tests.support import monitoring, processes
from tests.support.fronts import behind_haproxy
from tests.support.scraping import not_exported
from tests.support.waiting import eventually

pytestmark = behind_haproxy
MESSAGES = [{"role": "user", "content": "tell me more"}]
SLOW = {"decode_tokens_per_s": 50}
PREFILLS = {"prefill_tokens_per_s": 4000}
ZERO = {"min_replicas": 0, "max_replicas": 1, "downscale_to_zero_delay_s": 600}


@pytest.fixture(scope="module")
def url(deploy) -> str:
    engine = {"kind": "simulated", "slots": 2, "simulated": SLOW}
    return deploy(
        pools=[
            {"name": "small", "models": "a,b", "engine": engine},
            {"name": "large", "models": "c", "engine": engine, "autoscaling": ZERO},
            {
                "name": "sticky",
                "models": "d",
                "engine": {"kind": "simulated"},
                "routing": "session",
                "autoscaling": {"min_replicas": 2, "max_replicas": 2},
            },
            {
                "name": "placed",
                "models": "e",
                "engine": {"kind": "simulated", "slots": 8, "simulated": PREFILLS},
                "routing": "affinity",
                "autoscaling": {"min_replicas": 2, "max_replicas": 2},
                "ray_actor_options": {"num_cpus": 0.1},
            },
        ],
        aliases={"any": ["a", "d"]},
        alias_wait_s=0.1,
    )


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def chat(model: str, tokens: int = 2, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": MESSAGES, "max_tokens": tokens, **more}


def replicas(pool: str) -> int:
    """That a pool has, in any state."""
    deployments = serve.status().applications["default"].deployments
    return sum(deployments[pool].replica_states.values())


async def test_listings_and_health_wake_no_pool(client: httpx.AsyncClient) -> None:
    """They come from the settings; a pool that may be empty is ready."""
    models = (await client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == [
        "a:latest",
        "b:latest",
        "c:latest",
        "d:latest",
        "e:latest",
        "any",
    ]
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/api/ps")).status_code == 200
    assert replicas("large") == 0


async def test_the_pool_is_found_by_the_model(client: httpx.AsyncClient) -> None:
    """Each model belongs to one pool, and only that works."""
    answer = await client.post("/v1/chat/completions", json=chat("B"))
    assert answer.json()["model"] == "b:latest"
    assert replicas("large") == 0


async def begun(client: httpx.AsyncClient, model: str) -> asyncio.Task[None]:
    """A long stream that has its first bytes."""
    first = asyncio.Event()

    async def read() -> None:
        body = chat(model, 1000, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for _ in answer.aiter_bytes():
                first.set()

    task = asyncio.create_task(read())
    await first.wait()
    return task


async def test_an_alias_falls_back_where_a_pool_is_full(client: httpx.AsyncClient) -> None:
    """After `alias_wait_s` the next model answers, and the header says why."""
    answer = await client.post("/v1/chat/completions", json=chat("any"))
    assert answer.headers["x-model-route"] == "any -> a:latest; reason=first"
    streams = [await begun(client, "a") for _ in range(2)]
    answer = await client.post("/v1/chat/completions", json=chat("any"))
    for stream in streams:
        stream.cancel()
    assert answer.status_code == 200
    assert answer.json()["model"] == "d:latest"
    assert answer.headers["x-model-route"] == "any -> d:latest; reason=full"


async def test_the_first_request_is_held_until_a_replica_is_there(
    client: httpx.AsyncClient,
) -> None:
    """From zero it is answered, not refused."""
    answer = await client.post("/v1/chat/completions", json=chat("c"))
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 2


async def test_a_session_stays_with_its_replica(client: httpx.AsyncClient) -> None:
    """So a conversation's second turn finds its history in the engine's prefix cache."""
    words = "the history of a long conversation " * 20
    for session in "abcdef":
        body = chat("d") | {"messages": [{"role": "user", "content": f"{session} {words}"}]}
        headers = {"x-session-id": session}
        for _ in range(2):
            answer = await client.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == 200
    assert len(simulators("d")) == 2
    stats = [(await client.get(f"{url}/_sim/stats")).json() for url in simulators("d")]
    # All of every second prompt but its last token.
    assert sum(stat["cached_tokens"] for stat in stats) >= 6 * 119


async def test_a_conversation_goes_where_it_is_cached(client: httpx.AsyncClient) -> None:
    """Without a session id: its later turns find their history, whatever others ask."""
    talks = {name: [{"role": "user", "content": f"{name} said " * 400}] for name in "abcdef"}
    for _ in range(3):
        for messages in talks.values():
            body = chat("e") | {"messages": messages}
            answer = await client.post("/v1/chat/completions", json=body)
            messages += [answer.json()["choices"][0]["message"], {"role": "user", "content": "x"}]
    stats = [(await client.get(f"{url}/_sim/stats")).json() for url in simulators("e")]
    assert len(stats) == 2
    # Of each talk the history of two turns.
    assert sum(stat["cached_tokens"] for stat in stats) >= 6 * 2 * 800
    predicted = monitoring.OF_PLACEMENT - {"ray_llm_placement_moves_total"}  # nothing need move
    assert not await not_exported(rf"{name}\{{" for name in predicted)


def simulators(model: str) -> list[str]:
    """The addresses of the engines that serve `model`."""
    pids = processes.descendants(os.getpid())
    lines = (processes.own_command(pid).split() for pid in pids)
    return [
        f"http://127.0.0.1:{line[line.index('--port') + 1]}"
        for line in lines
        if "serve_app.simulator" in line and line[line.index("--models") + 1] == model
    ]


def worker() -> int:
    """The process of the small pool's replica."""
    pids = processes.descendants(os.getpid())
    (pid,) = [p for p in pids if processes.command(p).startswith("ray::ServeReplica:default:small")]
    return pid


async def test_a_killed_replica_costs_only_the_streams_in_progress(
    client: httpx.AsyncClient,
) -> None:
    """A stream that had begun ends in an error event; a request after it waits and is answered."""
    async with client.stream(
        "POST", "/v1/chat/completions", json=chat("a", 500, stream=True)
    ) as answer:
        pieces = answer.aiter_bytes()
        await anext(pieces)
        pid = worker()
        os.kill(pid, signal.SIGKILL)
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=chat("a")))
        rest = b"".join([piece async for piece in pieces])
    assert b'data: {"error":' in rest
    assert b"[DONE]" not in rest
    assert (await asking).status_code == 200
    await eventually(lambda: replicas("small") == 1, within_s=30)
