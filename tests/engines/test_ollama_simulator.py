"""The simulator of the tests: the faults, pulls and records that it adds to the one that ships."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.support.simulator_client import JSON, MODEL, Simulator, client_of, started, user

EXTENDED = "tests.support.ollama_simulator"


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    with started(EXTENDED, f"--models={MODEL}", "--answer-tokens=8") as running:
        yield running


@pytest.fixture
async def sim(shared: Simulator) -> AsyncIterator[Simulator]:
    """An instant simulator, reset."""
    async with aiohttp.ClientSession() as shared.http:
        await shared.http.post(shared.url + "/_sim/reset")
        yield shared


# pulls


async def test_pull_and_delete(sim: Simulator) -> None:
    """A pull tells its progress and adds the model; a delete removes it."""
    lines = await sim.lines("/api/pull", model="new")
    first, *_, last = map(json.loads, lines)
    assert (first["status"], last["status"]) == ("pulling manifest", "success")
    names = [model["name"] for model in (await sim.get("/api/tags"))["models"]]
    assert names[-1] == "new:latest"
    await sim.http.delete(sim.url + "/api/delete", json={"model": "new"})
    assert len((await sim.get("/api/tags"))["models"]) == len(names) - 1


async def test_offline_pull() -> None:
    """Without a network a pull fails under 200, in its last line."""
    async with client_of(EXTENDED, "--offline") as sim:
        lines = await sim.lines("/api/pull", model="new")
        assert "network is unreachable" in json.loads(lines[-1])["error"]


# records


async def test_requests_are_recorded(sim: Simulator) -> None:
    """The statistics hold the last request and the beginnings of those before it."""
    await sim.chat("first")
    await sim.http.post(sim.url + "/api/chat", data=b"x" * 5000, headers={"X-Key": "k"})
    stats = await sim.stats()
    assert stats["last"]["method"] == "POST"
    assert ["X-Key", "k"] in stats["last"]["headers"]
    assert stats["last"]["body"] == "x" * 5000
    assert [request["path"] for request in stats["history"]] == ["/api/chat"] * 2
    assert len(stats["history"][1]["body"]) == 4096
    await sim.http.post(sim.url + "/_sim/reset")
    assert (await sim.stats())["history"] == []


# faults


async def test_unknown_fault(sim: Simulator) -> None:
    """A fault that doesn't exist is refused."""
    async with sim.http.post(sim.url + "/_sim/fault", json={"kind": "gremlin"}) as reply:
        assert reply.status == 400


STREAMS: dict[str, JSON] = {
    "/api/chat": {"messages": [user("x")]},
    "/api/generate": {"prompt": "x"},
    "/v1/chat/completions": {"messages": [user("x")], "stream": True},
    "/v1/completions": {"prompt": "x", "stream": True},
    "/v1/responses": {"input": "x", "stream": True},
    "/v1/messages": {"messages": [user("x")], "max_tokens": 20, "stream": True},
}
FINAL = ('"done":true', "[DONE]", "response.completed", "message_stop")
each_stream = pytest.mark.parametrize("path", STREAMS)


def is_complete(lines: list[str]) -> bool:
    return any(final in line for line in lines[-3:] for final in FINAL)


@each_stream
async def test_complete_stream(sim: Simulator, path: str) -> None:
    """A stream without a fault ends with its dialect's final marker."""
    assert is_complete(await sim.lines(path, **STREAMS[path]))


@each_stream
@pytest.mark.parametrize("kind", ["end", "unfinished", "error_line"])
async def test_incomplete_stream(sim: Simulator, path: str, kind: str) -> None:
    """A stream that ends cleanly but too early has no final marker; the next is sound again."""
    await sim.fault(kind=kind, after_tokens=2)
    lines = await sim.lines(path, **STREAMS[path])
    assert lines
    assert not is_complete(lines)
    assert is_complete(await sim.lines(path, **STREAMS[path]))


@each_stream
async def test_cut_stream(sim: Simulator, path: str) -> None:
    """A cut leaves the HTTP body without its end."""
    await sim.fault(kind="cut", after_tokens=2)
    with pytest.raises(aiohttp.ClientPayloadError):
        await sim.lines(path, **STREAMS[path])


async def test_cut_before_the_first_token(sim: Simulator) -> None:
    """A cut after 0 tokens leaves no status line either."""
    await sim.fault(kind="cut", after_tokens=0)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await sim.lines("/api/chat", **STREAMS["/api/chat"])


async def test_error_line(sim: Simulator) -> None:
    """Ollama's line about a dead engine comes after the tokens, and is a 500 without a stream."""
    await sim.fault(kind="error_line", after_tokens=2, times=2)
    *tokens, error = await sim.lines("/api/chat", **STREAMS["/api/chat"])
    assert (len(tokens), list(json.loads(error))) == (2, ["error"])
    assert "unexpected EOF" in (await sim.chat())["error"]


async def test_die() -> None:
    """The process is gone at the declared token, and the tokens before it have been sent."""
    async with client_of(EXTENDED, "--decode-tokens-per-s=100") as sim:
        await sim.fault(kind="die", after_tokens=3)
        got = b""
        with pytest.raises(aiohttp.ClientPayloadError):
            async with sim.http.post(
                sim.url + "/api/chat", json={"model": MODEL, "messages": [user("x")]}
            ) as reply:
                async for line in reply.content:
                    got += line
        assert got.count(b"\n") == 3
        assert await asyncio.to_thread(sim.process.wait, 2) == 1


async def test_stall(sim: Simulator) -> None:
    """A stall keeps the stream waiting in the middle; then it goes on to its end."""
    await sim.fault(kind="stall", after_tokens=2, for_s=0.1)
    began = time.monotonic()
    assert is_complete(await sim.lines("/api/chat", **STREAMS["/api/chat"]))
    assert time.monotonic() - began >= 0.1


async def test_silence(sim: Simulator) -> None:
    """A silent server accepts and answers late; a hang-up meanwhile counts as one."""
    await sim.fault(kind="silent", for_s=0.1, times=2)
    began = time.monotonic()
    assert (await sim.chat())["done"]
    assert time.monotonic() - began >= 0.1
    (await sim.open("/api/chat", messages=[user("x")])).close()
    await sim.until(lambda stats: stats["aborts"] == 1)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/chat", {"error": "full"}),
        (
            "/v1/chat/completions",
            {"error": {"message": "full", "type": "api_error", "param": None, "code": None}},
        ),
        ("/v1/messages", {"type": "overloaded_error", "message": "full"}),
    ],
)
async def test_refusal(sim: Simulator, path: str, expected: JSON) -> None:
    """A refusal has the declared status and the dialect's shape."""
    await sim.fault(kind="refuse", status=503, error="full")
    async with sim.http.post(sim.url + path, json={"model": MODEL, **STREAMS[path]}) as reply:
        assert reply.status == 503
        body = await reply.json()
        assert body == expected or body["error"] == expected


async def test_comments(sim: Simulator) -> None:
    """Comments keep an event stream open before its first token."""
    await sim.fault(kind="comment", for_s=0.06, every_s=0.02)
    lines = await sim.lines("/v1/chat/completions", **STREAMS["/v1/chat/completions"])
    assert lines[:3] == [": ping"] * 3
    assert is_complete(lines)


async def test_unfinished_answer(sim: Simulator) -> None:
    """A whole answer that Ollama gave up on has done false, or no finish_reason and no usage."""
    await sim.fault(kind="unfinished", times=2)
    assert (await sim.chat())["done"] is False
    answer = await sim.post("/v1/chat/completions", messages=[user("x")])
    assert answer["choices"][0]["finish_reason"] is None
    assert answer["usage"]["total_tokens"] == 0


async def test_faults_wait_for_their_path(sim: Simulator) -> None:
    """A fault with a path spares the others; without one it spares what is no answer."""
    await sim.fault(kind="refuse", path="/api/version", error="no")
    assert (await sim.chat())["done"]
    assert await sim.get("/api/version") == {"error": "no"}
    await sim.fault(kind="refuse")
    assert await sim.get("/api/version") == {"version": "0.33.0"}
    await sim.fault(kind="none")
    assert (await sim.chat())["done"]
