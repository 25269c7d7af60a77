"""Streams that break at any byte: whole events come out, and the last one says what happened."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from serve_app.api import anthropic, ollama, openai
from serve_app.api.endpoint import Endpoint
from serve_app.api.relay import Tail, relay_stream
from serve_app.engines.base import Answer
from serve_app.errors import EngineLost
from tests.support.service import Simulator

ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (*openai.ENDPOINTS, *ollama.ENDPOINTS, *anthropic.ENDPOINTS)
    if endpoint.streams != "never"
}
LIMITS: dict[str, Any] = {"max_tokens": 2, "max_output_tokens": 2, "options": {"num_predict": 2}}


def recorded(simulator: Simulator, path: str) -> httpx.Response:
    """A short stream, as an engine sends it."""
    request = {**ENDPOINTS[path].example, "model": "smollm2:135m", "stream": True}
    limits = {key: LIMITS[key] for key in LIMITS.keys() & ENDPOINTS[path].keys}
    return httpx.post(simulator.url + path, json=request | limits, trust_env=False)


def parsed(path: str, stream: bytes) -> list[Any]:
    """The JSON of each event, as a strict reader sees them; "[DONE]" as it is."""
    if path.startswith("/api"):
        assert stream.endswith(b"\n")
        return [orjson.loads(line) for line in stream.splitlines()]
    stream = stream.replace(b"\r\n", b"\n")
    assert stream.endswith(b"\n\n")
    return [_data(event) for event in stream.split(b"\n\n")[:-1]]


def _data(event: bytes) -> Any:
    fields = [line.partition(b": ") for line in event.split(b"\n")]
    assert [name for name, _, _ in fields] in ([b"data"], [b"event", b"data"])
    data = fields[-1][2]
    return "[DONE]" if data == b"[DONE]" else orjson.loads(data)


async def relayed(endpoint: Endpoint, kind: str, *pieces: bytes, breaks: bool) -> bytes:
    """What a client gets of a stream that breaks off, or ends, behind `pieces`."""

    async def engine() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if breaks:
            raise EngineLost("the engine broke the connection off")

    got: list[bytes] = []

    async def send(message: Any) -> None:
        got.append(message.get("body", b""))

    answer = Answer(200, ((b"content-type", kind.encode()),), engine())
    await relay_stream(
        answer,
        send,
        endpoint.stream_end,
        lambda exc, tail: endpoint.event(endpoint.dialect.error(exc, ""), tail),
        lambda: None,
        Tail(),
    )
    return b"".join(got)


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("path", ENDPOINTS)
async def test_an_error_event_begins_on_its_own(
    simulator: Simulator, path: str, line_end: bytes, breaks: bool
) -> None:
    """At whichever byte the engine's stream ends: never within an event, nor glued to one."""
    whole = recorded(simulator, path)
    kind, stream = whole.headers["content-type"], whole.content.replace(b"\n", line_end)
    events = parsed(path, stream)
    for size in range(1, len(stream) + 1):
        received = await relayed(ENDPOINTS[path], kind, stream[:5], stream[5:size], breaks=breaks)
        *before, last = parsed(path, received)
        assert before == events[: len(before)]
        assert "internal" not in str(last)
        assert last == events[-1] or "engine" in str(last)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_an_event_in_pieces_is_the_same_event(simulator: Simulator, path: str) -> None:
    """Byte by byte, or all at once: the client gets the engine's bytes."""
    whole = recorded(simulator, path)
    kind, stream = whole.headers["content-type"], whole.content
    single = [stream[at : at + 1] for at in range(len(stream))]
    for pieces in ([stream], single):
        assert await relayed(ENDPOINTS[path], kind, *pieces, breaks=False) == stream
