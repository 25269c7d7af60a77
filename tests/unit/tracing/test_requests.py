"""The span of a request and those below it, as a collector receives them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serve_app.settings import Settings
from serve_app.tracing.context import TraceContext
from serve_app.tracing.notes import SpanNotes
from tests.support.in_process import simulated
from tests.support.otlp import Collector, Received, sender
from tests.support.service import Service, Simulator, serving, started
from tests.support.waiting import eventually

MODEL = "smollm2:135m"
HELLO = [{"role": "user", "content": "hello there"}]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
# Everything that a dialect calls an operation, and why its answers of few tokens end.
ROUTES: dict[str, tuple[dict[str, Any], str, str]] = {
    "/v1/chat/completions": ({"messages": HELLO, "max_tokens": 3}, "chat", "length"),
    "/v1/responses": ({"input": "hello", "max_output_tokens": 3}, "chat", "completed"),
    "/v1/messages": ({"messages": HELLO, "max_tokens": 3}, "chat", "max_tokens"),
    "/api/chat": ({"messages": HELLO, "options": {"num_predict": 3}}, "chat", "length"),
    "/v1/completions": ({"prompt": "the", "max_tokens": 3}, "text_completion", "length"),
    "/api/generate": (
        {"prompt": "the", "options": {"num_predict": 3}},
        "text_completion",
        "length",
    ),
}


async def root(received: Collector) -> Received:
    """The span of the only request, when it has come."""
    await eventually(lambda: received.roots)
    (span,) = received.roots
    return span


async def chat(service: Service, headers: dict[str, str] | None = None, **more: Any) -> Any:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 5, **more}
    return await service.post("/v1/chat/completions", json=body, headers=headers)


async def test_a_request_has_one_span_in_the_conventions_names(
    traced: Service, received: Collector
) -> None:
    """With what was asked, and what the engine has counted."""
    headers = {"x-session-id": "talk 7", "x-request-id": "req 1"}
    await chat(traced, headers, stream=True)
    span = await root(received)
    ttft = span.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < ttft < span.ended - span.began
    assert span.attributes.pop("gen_ai.usage.input_tokens") > 0
    assert (span.name, span.kind, span.parent_id, span.status) == (
        f"chat {MODEL}",
        "SERVER",
        "",
        "UNSET",
    )
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.conversation.id": "talk 7",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.output_tokens": 5,
        "http.response.status_code": 200,
        "serve_app.request.id": "req 1",
    }
    assert span.resource["service.name"] == "scalable-llm-inference"
    assert span.resource["service.instance.id"] == "one"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
async def test_every_dialect_is_traced(
    traced: Service, received: Collector, path: str, stream: bool
) -> None:
    """By its operation, with the reason for its end, streamed or not."""
    body, operation, reason = ROUTES[path]
    answer = await traced.post(path, json={"model": MODEL, "stream": stream, **body})
    assert answer.status_code == 200, answer.text
    span = await root(received)
    assert span.name == f"{operation} {MODEL}"
    assert span.attributes["gen_ai.request.max_tokens"] == 3
    assert span.attributes["gen_ai.response.finish_reasons"] == [reason]
    assert span.attributes.get("gen_ai.request.stream", False) is stream


async def test_embeddings_are_traced(traced: Service, received: Collector) -> None:
    """They have tokens of input alone, and no reason for their end."""
    await traced.post("/api/embed", json={"model": MODEL, "input": "hello"})
    span = await root(received)
    assert span.name == f"embeddings {MODEL}"
    assert "gen_ai.response.finish_reasons" not in span.attributes


KEY = "sk-0123456789abcdef"
WITH_KEY = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
async def shared_keyed(
    shared_simulator: Simulator, shared_collector: Collector
) -> AsyncIterator[Service]:
    """A service with a key and an alias."""
    more: dict[str, Any] = {"api_keys": {"ada": KEY}, "aliases": {"any": [MODEL]}}
    to = sender(shared_collector.http)
    async with serving(shared_simulator, sender=to, **more) as running:
        yield running


@pytest.fixture
def keyed(shared_keyed: Service, simulator: Simulator, received: Collector) -> Service:
    return shared_keyed


async def test_an_alias_is_what_was_requested(keyed: Service, received: Collector) -> None:
    """The model that answered is another attribute."""
    await chat(keyed, WITH_KEY, model="any")
    span = await root(received)
    assert span.name == "chat any"
    assert span.attributes["gen_ai.request.model"] == "any"
    assert span.attributes["gen_ai.response.model"] == MODEL


async def slowly(body: bytes) -> AsyncIterator[bytes]:
    """Send the last byte a moment later."""
    yield body[:-1]
    await asyncio.sleep(0.01)
    yield body[-1:]


async def test_children_tell_where_the_time_went(traced: Service, received: Collector) -> None:
    """Reading, prefill and decode, one after the other within the request."""
    body = b'{"model": "smollm2:135m", "messages": [{"role": "user", "content": "x"}], '
    body += b'"stream": true, "max_tokens": 20}'
    length = {"content-length": str(len(body))}
    await traced.post("/v1/chat/completions", content=slowly(body), headers=length)
    span = await root(received)
    children = [received.named(name)[0] for name in ("read body", "prefill", "decode")]
    times = [time for child in children for time in (child.began, child.ended)]
    assert [span.began, *times, span.ended] == sorted([span.began, *times, span.ended])
    assert {child.parent_id for child in children} == {span.span_id}
    assert {child.trace_id for child in children} == {span.trace_id}
    assert children[0].ended - children[0].began >= 0.01


async def test_an_answer_in_one_piece_is_split_by_the_engines_times(
    traced: Service, received: Collector
) -> None:
    """Ollama reports how long it has read and generated."""
    body = {"model": MODEL, "messages": HELLO, "stream": False, "options": {"num_predict": 20}}
    answer = (await traced.post("/api/chat", json=body)).json()
    await root(received)
    (decode,) = received.named("decode")
    assert decode.ended - decode.began == pytest.approx(answer["eval_duration"] / 1e9, abs=1e-6)
    assert received.named("generate")


async def test_waiting_in_the_queue_is_a_child(
    traced: Service, simulator: Simulator, received: Collector
) -> None:
    """With the priority, and the calls that waited before it."""
    simulator.fault(kind="stall", after_tokens=1, for_s=30, times=4)
    tasks = [asyncio.create_task(chat(traced, stream=True)) for _ in range(4)]
    await eventually(lambda: simulator.stats()["in_flight"] == 4)
    for number in (1, 2):
        headers = {"x-priority": "batch"} if number == 2 else {}
        tasks.append(asyncio.create_task(chat(traced, headers)))
        await eventually(lambda number=number: waiting(traced) == number)
    for task in tasks[:4]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await eventually(lambda: len(received.roots) == len(tasks))
    waits = [span.attributes for span in received.named("queue")]
    assert {"serve_app.queue.position": 1, "serve_app.priority": "batch"} in waits
    assert {"serve_app.queue.position": 0, "serve_app.priority": "standard"} in waits


async def test_the_load_of_a_model_is_a_child(received: Collector) -> None:
    """Of the request that has waited for it."""
    options = ("--models", "a,b", "--load-s", "0.02", "--max-loaded-models", "1")
    async with simulated(*options) as engine:
        settings = {"kind": "attach", "url": engine.url, "max_loaded_models": 1, "min_loaded_s": 0}
        built = Settings.model_validate({"models": "a,b", "engine": settings})
        async with started(built, sender=sender(received.http)) as service:
            await chat(service, model="a")
            await chat(service, model="b")
    (load,) = received.named("load model")
    assert load.attributes == {"serve_app.model": "b:latest"}
    assert load.ended - load.began >= 0.02
    (second,) = received.named("chat b:latest")
    assert load.parent_id == second.span_id


def waiting(service: Service) -> int:
    return sum(service.admission.waiting_by_flow().values())


async def test_a_trace_goes_on_from_the_caller_to_the_engine(
    traced: Service, simulator: Simulator, received: Collector
) -> None:
    """By W3C's headers, with this service's span between them."""
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
    await chat(traced, headers)
    span = await root(received)
    assert (span.trace_id, span.parent_id) == (TRACE, SPAN)
    got = simulator.last_headers
    assert got["traceparent"] == f"00-{TRACE}-{span.span_id}-01"
    assert got["tracestate"] == "vendor=1"


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": f"00-{TRACE.upper()}-{SPAN}-01", "tracestate": "vendor=1"},
        {"traceparent": "0" * 4000},
        {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "x" * 4000},
    ],
)
async def test_no_header_of_a_caller_passes_unchecked(
    traced: Service, simulator: Simulator, received: Collector, headers: dict[str, str]
) -> None:
    """The engine gets one well-formed parent, and no state that is too long or has none."""
    await chat(traced, headers)
    span = await root(received)
    got = simulator.last_headers
    assert got["traceparent"] == f"00-{span.trace_id}-{span.span_id}-01"
    assert "tracestate" not in got


async def test_the_log_has_the_id_of_the_trace(traced: Service, received: Collector) -> None:
    """In its record of the request's use, and only where there is a trace."""
    await chat(traced)
    span = await root(received)
    assert traced.noted.last.fields()["trace_id"] == span.trace_id
    await chat(traced, {"traceparent": f"00-{TRACE}-{SPAN}-00"})
    await eventually(lambda: not traced.noted.running)
    assert traced.noted.last.fields()["trace_id"] == ""


async def test_a_broken_stream_is_an_error(
    traced: Service, simulator: Simulator, received: Collector
) -> None:
    """Named by its class, its answer without an end."""
    simulator.fault(kind="cut", after_tokens=2)
    await chat(traced, stream=True)
    span = await root(received)
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "EngineLost")
    assert span.attributes["gen_ai.response.finish_reasons"] == ["error"]


async def test_a_retry_is_an_event(
    traced: Service, simulator: Simulator, received: Collector
) -> None:
    """With the failure before it."""
    simulator.fault(kind="cut", after_tokens=0)
    await chat(traced, stream=True)
    span = await root(received)
    assert span.events == {"retry": {"error.type": "engine_lost"}}
    assert span.status == "UNSET"


async def test_a_hang_up_is_an_event(
    traced: Service, simulator: Simulator, received: Collector
) -> None:
    """No error of the service's."""
    body = {"model": MODEL, "messages": HELLO, "options": {"num_predict": 4000}}
    async with traced.stream("POST", "/api/chat", json=body) as answer:
        await anext(answer.aiter_bytes())
    span = await root(received)
    assert span.events == {"client hung up": {}}
    assert (span.status, span.attributes["error.type"]) == ("UNSET", "cancelled")
    assert received.named("decode")


@pytest.mark.parametrize(
    ("more", "status", "error", "code"),
    [
        ({"model": "unknown"}, "UNSET", "NotFound", 404),
        ({"messages": []}, "UNSET", "BadRequest", 400),
    ],
)
async def test_mistakes_of_callers_are_no_errors_of_the_service(
    traced: Service, received: Collector, more: dict[str, Any], status: str, error: str, code: int
) -> None:
    """They have a type all the same."""
    await chat(traced, **more)
    span = await root(received)
    assert (span.status, span.attributes["error.type"]) == (status, error)
    assert span.attributes["http.response.status_code"] == code
    assert "gen_ai.response.model" not in span.attributes


async def test_other_routes_have_no_spans(traced: Service, received: Collector) -> None:
    """Listings and lookups of models; the request after them has the first."""
    await traced.get("/v1/models")
    await traced.post("/api/show", json={"model": MODEL})
    await chat(traced)
    assert (await root(received)).name.startswith("chat")


SECRET = {"model": MODEL, "messages": [{"role": "user", "content": "a secret"}]}


def words_of(answer: httpx.Response) -> str:
    lines = map(json.loads, answer.text.splitlines())
    return "".join(line["message"]["content"] for line in lines)


async def test_no_content_and_no_key_is_in_a_span(keyed: Service, received: Collector) -> None:
    """Whatever was asked and answered."""
    words = words_of(await keyed.post("/api/chat", json=SECRET, headers=WITH_KEY))
    await root(received)
    sent = str(received.spans)
    assert len(words) > 10
    assert not [text for text in ("a secret", words[:10], KEY) if text in sent]


async def test_content_is_captured_on_request(simulator: Simulator, received: Collector) -> None:
    """In the conventions' attributes; a key never is."""
    to = sender(received.http, content=True)
    async with serving(simulator, sender=to, api_keys={"ada": KEY}) as service:
        words = words_of(await service.post("/api/chat", json=SECRET, headers=WITH_KEY))
    (span,) = received.roots
    assert "a secret" in span.attributes["gen_ai.input.messages"]
    assert words in span.attributes["gen_ai.output.messages"]
    assert KEY not in str(received.spans)


async def test_callers_without_a_key_cannot_fill_a_collector(
    keyed: Service, received: Collector
) -> None:
    """A refused caller gets no span: the only one is that of the request after it."""
    assert (await chat(keyed)).status_code == 401
    await chat(keyed, WITH_KEY)
    assert (await root(received)).attributes["http.response.status_code"] == 200


def test_notes_of_one_request_have_a_bound() -> None:
    """However often it is tried again."""
    notes = SpanNotes(TraceContext(1, 1, True))
    for _ in range(1000):
        notes.wait("batch", 0)
        notes.event("retry")
    notes.end()
    assert len(notes.steps) == len(notes.events) == 64
