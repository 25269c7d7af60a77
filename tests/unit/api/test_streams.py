"""Answers on their way: bytes untouched, and never a truncated one that looks whole."""

import asyncio
import json
from typing import Any

import pytest

from tests.support.openai_events import check_event
from tests.support.service import Service, Simulator, serving, start_simulator
from tests.support.waiting import eventually

MESSAGES = [{"role": "user", "content": "tell me more"}]
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 12},
    "/v1/completions": {"prompt": "a b", "max_tokens": 12},
    "/v1/responses": {"input": "a b", "max_output_tokens": 12},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 12},
    "/api/chat": {"messages": MESSAGES, "options": {"num_predict": 12}},
    "/api/generate": {"prompt": "a b", "options": {"num_predict": 12}},
}
FINAL = {
    "/v1/chat/completions": b"data: [DONE]\n\n",
    "/v1/completions": b"data: [DONE]\n\n",
    "/v1/responses": b'"type":"response.completed"}\n\n',
    "/v1/messages": b'data: {"type":"message_stop"}\n\n',
}
ERROR = {
    "/v1/chat/completions": b'data: {"error":{"message":',
    "/v1/completions": b'data: {"error":{"message":',
    "/v1/responses": b'event: error\ndata: {"type":"error",',
    "/v1/messages": b'event: error\ndata: {"type":"error","error":{"type":',
    "/api/chat": b'{"error":',
    "/api/generate": b'{"error":',
}


def body(path: str, stream: bool = True) -> dict[str, Any]:
    return {"model": "smollm2:135m", "stream": stream, **STREAMS[path]}


@pytest.mark.parametrize("path", STREAMS)
async def test_streams_pass_whole(service: Service, path: str) -> None:
    """A stream comes with the engine's content type and its final marker, and is counted."""
    answer = await service.post(path, json=body(path))
    assert answer.status_code == 200
    kind = "application/x-ndjson" if path.startswith("/api") else "text/event-stream"
    assert answer.headers["content-type"] == kind
    assert answer.content.endswith(FINAL.get(path, b"}\n"))
    assert service.noted.last.outcome == "ok"
    assert service.noted.last.ttft is not None
    assert service.noted.last.usage.generated == 12


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("wish", [None, True, False])
async def test_counts_reach_those_who_ask_for_them(
    service: Service, simulator: Simulator, path: str, wish: bool | None
) -> None:
    """The engine is always asked; the service has the counts either way."""
    options = {} if wish is None else {"stream_options": {"include_usage": wish}}
    answer = await service.post(path, json={**body(path), **options})
    assert simulator.last_body["stream_options"] == {"include_usage": True}
    assert (b'"usage"' in answer.content) is bool(wish)
    assert service.noted.last.usage.generated == 12


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("fault", ["cut", "end"])
async def test_broken_streams_end_in_an_error_event(
    service: Service, simulator: Simulator, path: str, fault: str
) -> None:
    """A stream that breaks, or ends cleanly without its marker, gets one error event."""
    simulator.fault(kind=fault, after_tokens=3)
    answer = await service.post(path, json=body(path))
    assert answer.status_code == 200
    last = answer.content.rstrip(b"\n").rpartition(b"\n\n" if "/v1" in path else b"\n")[2]
    assert last.startswith(ERROR[path])
    assert answer.content.count(ERROR[path]) == 1
    assert service.noted.last.outcome == "upstream_error"


async def test_an_error_event_of_a_response_is_numbered(
    service: Service, simulator: Simulator
) -> None:
    """OpenAI numbers every event of a response, so the error goes on from the engine's last."""
    simulator.fault(kind="cut", after_tokens=3)
    answer = await service.post("/v1/responses", json=body("/v1/responses"))
    datas = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    events = [json.loads(data) for data in datas]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    check_event(events[-1])


@pytest.mark.parametrize("path", STREAMS)
async def test_unfinished_answers_become_502(
    service: Service, simulator: Simulator, path: str
) -> None:
    """An answer under 200 that does not say that it is finished is not passed on as one."""
    simulator.fault(kind="unfinished")
    answer = await service.post(path, json=body(path, stream=False))
    assert answer.status_code == 502
    assert service.noted.last.outcome == "upstream_error"


async def test_ollamas_own_error_line_is_the_only_one(
    service: Service, simulator: Simulator
) -> None:
    """Where the engine itself says that it failed, nothing is added."""
    simulator.fault(kind="error_line", after_tokens=3)
    answer = await service.post("/api/chat", json=body("/api/chat"))
    assert answer.content.count(b'{"error":') == 1
    assert service.noted.last.outcome == "upstream_error"


@pytest.mark.parametrize("path", STREAMS)
async def test_upstream_errors_pass_verbatim(
    service: Service, simulator: Simulator, path: str
) -> None:
    """What the engine refuses is told in its own words and status."""
    simulator.fault(kind="refuse", status=418, error="short and stout")
    answer = await service.post(path, json=body(path))
    assert answer.status_code == 418
    assert "short and stout" in answer.text
    assert service.noted.last.outcome == "client_error"


async def test_a_slow_first_token_is_504(simulator: Simulator) -> None:
    """Comments are no tokens: a stream that has sent nothing else within its bound is given up."""
    async with serving(simulator, first_token_timeout_s=0.3) as service:
        simulator.fault(kind="comment", for_s=30, every_s=0.05)
        answer = await service.post("/v1/chat/completions", json=body("/v1/chat/completions"))
        assert answer.status_code == 504
        assert service.noted.last.outcome == "timeout"
        await idle(simulator)


async def test_comments_before_the_first_token_are_dropped(
    service: Service, simulator: Simulator
) -> None:
    """The answer begins with its first token, whatever the engine sent to keep the line open."""
    simulator.fault(kind="comment", for_s=0.1, every_s=0.02)
    answer = await service.post("/v1/chat/completions", json=body("/v1/chat/completions"))
    assert answer.content.startswith(b"data: {")
    assert answer.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_generation_has_a_bound_in_time(simulator: Simulator, stream: bool) -> None:
    """A generation that takes too long is ended: 504, or an error event where it has begun."""
    async with serving(simulator, generation_timeout_s=0.4, first_token_timeout_s=0.3) as service:
        simulator.fault(kind="stall", after_tokens=2, for_s=30)
        answer = await service.post(
            "/v1/chat/completions", json=body("/v1/chat/completions", stream)
        )
        assert answer.status_code == (200 if stream else 504)
        assert b'"error"' in answer.content
        assert service.noted.last.outcome == "timeout"
        await idle(simulator)


async def idle(simulator: Simulator) -> None:
    """Return when the engine works on nothing any more."""
    await eventually(lambda: not simulator.stats()["in_flight"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("unwatched", ["?1", "?0"])
async def test_a_disconnect_reaches_the_engine(
    service: Service, simulator: Simulator, stream: bool, unwatched: str
) -> None:
    """A caller who leaves takes the engine's work along, be it Serve that watches or the API."""
    headers = {"x-request-disconnect-disabled": unwatched}
    long = {**body("/api/chat", stream), "options": {"num_predict": 4000}}
    simulator.fault(kind="stall", after_tokens=1, for_s=30)
    if stream:
        async with service.stream("POST", "/api/chat", json=long, headers=headers) as answer:
            await anext(answer.aiter_bytes())
    else:
        asking = asyncio.create_task(service.post("/api/chat", json=long, headers=headers))
        await eventually(lambda: simulator.stats()["in_flight"] == 1)
        asking.cancel()
    await idle(simulator)
    await eventually(lambda: simulator.stats()["aborts"] == 1)
    await eventually(lambda: not service.noted.running)
    assert service.noted.last.outcome == "cancelled"


async def test_an_answer_that_broke_before_its_first_byte_is_tried_again(
    service: Service, simulator: Simulator
) -> None:
    """Nothing had come yet, so the caller never knows."""
    simulator.fault(kind="cut", after_tokens=0)
    answer = await service.post("/api/chat", json=body("/api/chat"))
    assert answer.status_code == 200
    assert b'"done":true' in answer.content
    assert simulator.reached["/api/chat"] == 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
async def test_an_engine_that_stays_away_is_503(path: str) -> None:
    """Within its bound a request waits for a lost engine; then it is told when to come back."""
    simulator = start_simulator()
    async with serving(simulator, engine_wait_s=0.05) as service:
        simulator.stop()
        answer = await service.post(path, json=body(path))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert "engine" in answer.text
        assert service.noted.last.outcome == "upstream_error"


@pytest.mark.parametrize("path", STREAMS)
async def test_a_dead_runner_is_tried_once_more(
    service: Service, simulator: Simulator, path: str
) -> None:
    """Ollama answers 500 when its runner dies, and loads it anew for the next request."""
    died = "an error was encountered while running the model: unexpected EOF"
    simulator.fault(kind="refuse", status=500, error=died)
    answer = await service.post(path, json=body(path, stream=False))
    assert answer.status_code == 200
    assert simulator.reached == {path: 2}


async def test_a_runner_that_dies_twice_is_told(service: Service, simulator: Simulator) -> None:
    """In Ollama's own words; and any other 500 is not tried again."""
    died = "an error was encountered while running the model: unexpected EOF"
    simulator.fault(kind="refuse", status=500, error=died, times=2)
    answer = await service.post("/api/chat", json=body("/api/chat"))
    assert (answer.status_code, answer.json()["error"]) == (500, died)
    simulator.reset()
    simulator.fault(kind="refuse", status=500, error="invalid file magic")
    answer = await service.post("/api/chat", json=body("/api/chat"))
    assert (answer.status_code, simulator.reached) == (500, {"/api/chat": 1})
