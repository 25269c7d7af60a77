"""Answers that the service's own bound has cut say so, in every dialect."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from serve_app.api.cut import admit_cut
from serve_app.api.endpoint import RequestBounds
from serve_app.engines.base import Answer
from serve_app.errors import EngineLost
from tests.support.service import Service, Simulator, serving

BOUND = 4
HELLO = [{"role": "user", "content": "tell me more"}]
# What each route says of an answer that was cut: the last value that has the field.
ROUTES: dict[str, tuple[dict[str, Any], str, str]] = {
    "/v1/chat/completions": ({"messages": HELLO}, "finish_reason", "length"),
    "/v1/completions": ({"prompt": "a b"}, "finish_reason", "length"),
    "/v1/responses": ({"input": "a b"}, "status", "incomplete"),
    "/v1/messages": ({"messages": HELLO, "max_tokens": 99}, "stop_reason", "max_tokens"),
    "/api/chat": ({"messages": HELLO}, "done_reason", "length"),
    "/api/generate": ({"prompt": "a b"}, "done_reason", "length"),
}


@pytest.fixture(scope="module")
async def bounded(shared_simulator: Simulator) -> AsyncIterator[Service]:
    """A service that lets nobody have more than `BOUND` tokens, before a simulated Ollama."""
    async with serving(shared_simulator, max_tokens=BOUND) as service:
        yield service


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ROUTES)
async def test_what_our_bound_cut_is_told_as_cut(bounded: Service, path: str, stream: bool) -> None:
    """Streamed or whole, no route calls it complete."""
    body, field, reason = ROUTES[path]
    answer = await bounded.post(path, json={"model": "other", "stream": stream, **body})
    values = [value for line in lines(answer.text) for value in values_of(line, field)]
    assert [value for value in values if value][-1] == reason
    assert bounded.noted.last.outcome == "ok"


HUGE = 10**30
MORE: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"max_tokens": HUGE},
    "/v1/completions": {"max_tokens": HUGE},
    "/v1/responses": {"max_output_tokens": HUGE},
    "/v1/messages": {"max_tokens": HUGE},
    "/api/chat": {"options": {"num_predict": HUGE}},
    "/api/generate": {"options": {"num_predict": HUGE}},
}


@pytest.mark.parametrize("path", MORE)
async def test_a_number_beyond_64_bits_is_bounded(bounded: Service, path: str) -> None:
    """It is positive, so no dialect refuses it, and the engine gets the service's own bound."""
    body, field, reason = ROUTES[path]
    answer = await bounded.post(
        path, json={"model": "other", "stream": False, **body, **MORE[path]}
    )
    assert answer.status_code == 200, answer.text
    assert [value for value in values_of(answer.json(), field) if value][-1] == reason


def lines(text: str) -> list[Any]:
    datas = (line.removeprefix("data: ") for line in text.splitlines())
    return [orjson.loads(data) for data in datas if data.startswith("{")]


def values_of(value: Any, name: str) -> Iterator[Any]:
    """Every value of a field, inner ones before those that stand beside them."""
    if isinstance(value, list):
        for inner in value:
            yield from values_of(inner, name)
    if isinstance(value, dict):
        for inner in value.values():
            yield from values_of(inner, name)
        if name in value:
            yield value[name]


async def test_a_cut_response_is_openais_incomplete_one(bounded: Service) -> None:
    """Reason, item and event are as OpenAI has them; nothing else is changed."""
    body = {"model": "other", "input": "a b"}
    whole = (await bounded.post("/v1/responses", json=body)).json()
    streamed = await bounded.post("/v1/responses", json={**body, "stream": True})
    *_, last = lines(streamed.text)
    assert "event: response.incomplete\n" in streamed.text
    assert last["type"] == "response.incomplete"
    for response in (whole, last["response"]):
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["output"][-1]["status"] == "incomplete"
        assert response["usage"]["output_tokens"] == BOUND


async def test_what_the_caller_cut_passes_as_it_came(bounded: Service) -> None:
    """Below the service's bound the engine's own words stand."""
    body = {"model": "other", "input": "a b", "max_output_tokens": BOUND - 1}
    assert (await bounded.post("/v1/responses", json=body)).json()["status"] == "completed"


FIRST = b'event: response.created\ndata: {"type":"response.created"}\n\n'
RESPONSE = {"status": "completed", "output": [{"status": "completed"}]}


def completed(tokens: int) -> bytes:
    response = {**RESPONSE, "usage": {"output_tokens": tokens}}
    event = {"response": response, "type": "response.completed"}
    return b"event: response.completed\ndata: " + orjson.dumps(event) + b"\n\n"


async def mended(pieces: list[bytes], broken: bool = False) -> bytes:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if broken:
            raise EngineLost("it broke")

    answer = Answer(200, ((b"content-type", b"text/event-stream"),), body())
    admit_cut(answer, {"max_output_tokens": BOUND}, RequestBounds(BOUND, False, 9))
    sent = b""
    try:
        async for piece in answer.body:
            sent += piece
    except EngineLost:
        sent += b"broken"
    return sent


@pytest.mark.parametrize("tokens", [BOUND - 1, BOUND])
async def test_a_stream_may_come_in_any_pieces(tokens: int) -> None:
    """However its bytes are cut, a cut answer is rewritten and any other passes untouched."""
    stream = FIRST + completed(tokens)
    for size in range(1, len(stream) + 1):
        sent = await mended([stream[at : at + size] for at in range(0, len(stream), size)])
        assert (sent == stream) is (tokens < BOUND)
        assert (b"response.incomplete" in sent) is (tokens == BOUND)
        assert sent.startswith(FIRST)
        assert sent.endswith(b"\n\n")


@pytest.mark.parametrize("stream", [FIRST, FIRST + completed(BOUND)[:60], FIRST + b"event: resp"])
async def test_a_broken_stream_keeps_what_came(stream: bytes) -> None:
    """What has no end is not given one."""
    assert await mended([stream]) == stream
    assert (await mended([stream], broken=True)).startswith(FIRST)


async def test_a_break_after_the_last_event_changes_nothing() -> None:
    """The answer was whole: its last event comes, then the error."""
    sent = await mended([FIRST + completed(BOUND)], broken=True)
    assert sent.endswith(b"}\n\nbroken")
    assert b"response.incomplete" in sent
