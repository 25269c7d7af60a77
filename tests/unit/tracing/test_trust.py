"""Headers of callers are checked, and neither content nor keys get into spans."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.otlp import Collector, sender
from tests.support.service import Service, Simulator, serving
from tests.support.traced import MODEL, SPAN, TRACE, chat, root

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
