"""The span of a request, as a collector receives it."""

from typing import Any

import pytest

from tests.support.otlp import Collector
from tests.support.service import Service, Simulator
from tests.support.traced import HELLO, MODEL, SPAN, TRACE, chat, root
from tests.support.waiting import eventually

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


async def test_a_key_in_the_wrong_header_is_not_exported(
    traced: Service, received: Collector
) -> None:
    """As a session, or as the request's id."""
    await chat(traced, {"x-session-id": "sk-llm-of-session", "x-request-id": "sk-llm-of-request"})
    attributes = (await root(received)).attributes
    assert attributes["gen_ai.conversation.id"] == attributes["serve_app.request.id"] == "sk-***"


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


async def test_a_disconnect_is_an_event(
    traced: Service, simulator: Simulator, received: Collector
) -> None:
    """No error of the service's."""
    body = {"model": MODEL, "messages": HELLO, "options": {"num_predict": 4000}}
    async with traced.stream("POST", "/api/chat", json=body) as answer:
        await anext(answer.aiter_bytes())
    span = await root(received)
    assert span.events == {"client disconnected": {}}
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
