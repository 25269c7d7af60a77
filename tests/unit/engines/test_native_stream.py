"""The native routes before an engine that misbehaves: a raw socket that speaks llama.cpp."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import orjson
import pytest

from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.engines.http1 import HttpClient
from serve_app.engines.llamacpp.client import LlamaServer
from serve_app.engines.llamacpp.gguf.header import GgufHeader
from serve_app.engines.llamacpp.native.routes import NativeRoutes
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.engines.process import free_port
from serve_app.errors import BadRequest, EngineDown, EngineError, EngineLost
from tests.support.scripted_llama import (
    DONE,
    FAILURE,
    HEAD,
    HI,
    ROLE,
    STOP,
    event,
    scripted_llama,
    stream_of,
)

CARD = ModelCard("m:latest", loaded_context_length=64, capabilities=("completion", "tools"))
HEADER, WINDOW = GgufHeader(Path("m.gguf"), {}, ()), ContextWindow(4096, 0)


@asynccontextmanager
async def routes_before(
    *pieces: bytes, disconnected: asyncio.Event | None = None
) -> AsyncIterator[NativeRoutes]:
    """Routes before an engine that answers anything with `pieces`, one write each, and closes.

    With `disconnected` it waits for the other side to close first, and sets it then.
    """
    async with scripted_llama(*pieces, disconnected=disconnected) as scripted:
        yield NativeRoutes(scripted.llama, CARD, HEADER, WINDOW)


def call(stream: bool = True) -> Call:
    body = {"model": "m:latest", "messages": [{"role": "user", "content": "x"}]}
    return Call("/api/chat", "m:latest", orjson.dumps(body), stream)


async def lines(answer: Answer) -> list[dict[str, object]]:
    try:
        data = b"".join([piece async for piece in answer.body])
        return [orjson.loads(line) for line in data.splitlines()]
    finally:
        answer.close()


async def test_events_may_come_in_any_pieces() -> None:
    """An event cut at every byte, with comments in between, gives the same lines as a whole one."""
    whole = b"".join([b": ping\n\n", ROLE, HI, STOP, DONE])
    for size in (1, 7, len(whole)):
        cut = [whole[at : at + size] for at in range(0, len(whole), size)]
        async with routes_before(*stream_of(*cut)) as routes:
            first, last = await lines(await routes.send(call()))
        assert first["message"] == {"role": "assistant", "content": "hé"}
        assert (last["done"], last["done_reason"]) == (True, "stop")
        assert (last["prompt_eval_count"], last["prompt_eval_duration"]) == (5, 1_500_000)
        assert (last["eval_count"], last["eval_duration"]) == (4, 2_000_000)


async def test_tool_calls_are_collected() -> None:
    """Fragments of arguments become one line with whole calls, their arguments objects."""
    fragments = [
        {"index": 0, "id": "x", "function": {"name": "f", "arguments": '{"a'}},
        {"index": 0, "function": {"arguments": '": 1}'}},
        {"index": 1, "function": {"name": "g", "arguments": ""}},
    ]
    events = [event(delta={"tool_calls": [fragment]}) for fragment in fragments]
    async with routes_before(*stream_of(ROLE, *events, STOP)) as routes:
        called, last = await lines(await routes.send(call()))
    message = called["message"]
    assert isinstance(message, dict)
    assert [made["function"] for made in message["tool_calls"]] == [
        {"index": 0, "name": "f", "arguments": {"a": 1}},
        {"index": 1, "name": "g", "arguments": {}},
    ]
    assert last["done_reason"] == "stop"


async def test_calls_that_the_limit_cut_are_left_out() -> None:
    """A call whose arguments broke off at num_predict is none; the reason tells why."""
    begun = event(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]})
    end = event(delta={}, finish_reason="length")
    async with routes_before(*stream_of(begun, end)) as routes:
        (last,) = await lines(await routes.send(call()))
    assert last["done_reason"] == "length"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "events",
    [
        stream_of(ROLE, HI),  # a clean end without the last event
        stream_of(ROLE, HI, end=False),  # a broken connection
        stream_of(HI, FAILURE),
        stream_of(HI, b'error: {"code":500,"message":"no memory"}\n\n'),
        stream_of(HI, b"data: {nonsense\n\n"),
    ],
)
async def test_a_truncated_answer_never_looks_complete(
    events: Sequence[bytes], stream: bool
) -> None:
    """However it breaks off, it ends with EngineLost and without a line that says done."""
    data = b""
    async with routes_before(*events) as routes:
        with pytest.raises(EngineLost):
            answer = await routes.send(call(stream))
            with closing(answer):
                async for piece in answer.body:
                    data += piece
    assert b'"done":true' not in data


async def test_a_failed_stream_closes_its_connection() -> None:
    """When there is no first token, nothing is left for the caller to close."""
    disconnected = asyncio.Event()
    async with routes_before(*stream_of(FAILURE, end=False), disconnected=disconnected) as routes:
        with pytest.raises(EngineLost, match="no memory") as failed:
            await routes.send(call())
        async with asyncio.timeout(5):  # while `failed` still holds the response
            await disconnected.wait()
        del failed


def refused(status: int, body: bytes) -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, len(body)) + body


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EngineLost),  # closed before a byte
        (HEAD, EngineLost),
        (refused(503, b'{"error":{"code":503,"message":"Loading model"}}'), EngineDown),
        (refused(502, b"<html>"), EngineLost),
    ],
)
async def test_failures_before_the_first_byte_have_their_class(
    data: bytes, error: type[EngineError]
) -> None:
    """EngineDown when it may be asked again later, EngineLost when it broke."""
    async with routes_before(data) as routes:
        with pytest.raises(error):
            await routes.send(call())


async def test_nobody_there_is_engine_down() -> None:
    """A refused connection: nothing was sent."""
    async with HttpClient() as session:
        url = f"http://127.0.0.1:{free_port()}"
        routes = NativeRoutes(LlamaServer(session, url), CARD, HEADER, WINDOW)
        with pytest.raises(EngineDown):
            await routes.send(call())


async def test_the_engines_own_refusal_passes_as_text() -> None:
    """A 4xx of llama.cpp keeps its status; its JSON is the error's text, as Ollama has it."""
    body = b'{"error":{"code":400,"message":"<bad>","type":"invalid_request_error"}}'
    async with routes_before(refused(400, body)) as routes:
        answer = await routes.send(call(stream=False))
        (line,) = await lines(answer)
    assert (answer.status, line) == (400, {"error": body.decode()})


async def test_a_mistake_that_llamacpp_calls_its_own_is_the_callers() -> None:
    """It says 500 in its own words, as of what its template can't render."""
    message = (
        "Failed to parse tools: [json.exception.type_error.302] type must be string, but is null"
    )
    body = orjson.dumps({"error": {"code": 500, "message": message, "type": "server_error"}})
    async with routes_before(refused(500, body)) as routes:
        with pytest.raises(BadRequest, match="tools: a value must be a string, not null"):
            await routes.send(call(stream=False))
