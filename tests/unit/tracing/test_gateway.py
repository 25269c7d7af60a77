"""One trace over the gateway's hop: its request, and the call in the replica below it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serve_app.api.build import build_api
from serve_app.dispatch.connection import Preference
from serve_app.dispatch.gateway import GatewayDispatcher
from serve_app.dispatch.reports import ReplicaReporter
from serve_app.dispatch.worker import CallServer
from serve_app.errors import EngineLost, ServiceError
from serve_app.ray_serve.engine_host import EngineHost
from serve_app.settings import Settings
from serve_app.tracing.replica import TracedCalls
from tests.support.otlp import Collector, Received, sender
from tests.support.service import Simulator, listening
from tests.support.waiting import eventually

MODEL = "smollm2:135m"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}


class Handle:
    """A deployment of one replica."""

    def __init__(self, server: CallServer, reporter: ReplicaReporter) -> None:
        self._server = server
        self._reporter = reporter

    def open(
        self, host: str, port: int, token: bytes, session: str | None, preference: Preference
    ) -> "asyncio.Task[None]":
        return asyncio.create_task(self._server.serve_calls(host, port, token))

    def service_error(self, exc: Exception) -> ServiceError:
        return exc if isinstance(exc, ServiceError) else EngineLost("lost")

    def running(self) -> frozenset[str]:
        return frozenset({"one"})

    async def introduce(self, host: str, port: int, token: bytes) -> None:
        await self._reporter.subscribe(host, port, token)


async def no_problem() -> str:
    return ""


@pytest.fixture(scope="module")
async def shared_gateway(
    shared_simulator: Simulator, shared_collector: Collector
) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway and one replica, each with a tracer of its own."""
    engine = {"kind": "attach", "url": shared_simulator.url, "slots": 4}
    settings = Settings.model_validate(
        {"topology": "gateway", "models": MODEL, "routing": "affinity", "engine": engine}
    )
    (pool,) = settings.all_pools
    senders = [sender(shared_collector.http) for _ in range(2)]
    host = EngineHost(settings, pool, lambda _: None)
    calls = TracedCalls(await host.start(), senders[1].tracer, "one")
    reporter = ReplicaReporter("one")
    handles = {pool.name: Handle(CallServer(calls, 0, name="one", reporter=reporter), reporter)}
    dispatcher = GatewayDispatcher(settings, handles, "127.0.0.1", no_problem)
    await dispatcher.start()
    api = build_api(settings, dispatcher, senders[0], dispatcher.stop, tracer=senders[0].tracer)
    try:
        async with (
            listening(api) as url,
            httpx.AsyncClient(base_url=url, trust_env=False) as client,
        ):
            yield client
    finally:
        senders[1].close()
        await host.stop()


@pytest.fixture
def gateway(
    shared_gateway: httpx.AsyncClient, simulator: Simulator, received: Collector
) -> httpx.AsyncClient:
    return shared_gateway


async def both(received: Collector) -> tuple[Received, Received]:
    """The spans of the request and of the call, when they have come.

    Others may come late, from a test before.
    """

    def pairs() -> list[tuple[Received, Received]]:
        calls = {call.trace_id: call for call in received.named("answer call")}
        return [(root, calls[root.trace_id]) for root in received.roots if root.trace_id in calls]

    await eventually(pairs)
    return pairs()[0]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_replicas_span_is_below_the_gateways(
    gateway: httpx.AsyncClient, simulator: Simulator, received: Collector, stream: bool
) -> None:
    """And the engine's would be below that of the replica."""
    await gateway.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    request, call = await both(received)
    assert call.trace_id == request.trace_id
    assert call.parent_id == request.span_id
    assert call.attributes == {"serve_app.replica": "one", "serve_app.model": MODEL}
    got = simulator.last_headers["traceparent"]
    assert got == f"00-{request.trace_id}-{call.span_id}-01"
    steps = ("prefill", "decode") if stream else ("generate",)
    assert {received.named(step)[0].parent_id for step in steps} == {call.span_id}


async def test_the_choice_of_a_replica_has_its_scores(
    gateway: httpx.AsyncClient, received: Collector
) -> None:
    """Those of the best three: here there is one."""
    body: dict[str, Any] = {**CHAT, "messages": [{"role": "user", "content": "word " * 900}]}
    await gateway.post("/v1/chat/completions", json=body)
    await both(received)
    (choice,) = received.named("choose replica")
    assert choice.attributes["serve_app.replicas"] == ["one"]
    assert choice.attributes["serve_app.predicted_ttft_s"][0] > 0
    assert choice.attributes["serve_app.cached_tokens"] == [0]


async def test_a_disconnect_ends_both_spans(
    gateway: httpx.AsyncClient, received: Collector
) -> None:
    """That of the replica, too, tells that its answer was not read to the end."""
    body = {**CHAT, "max_tokens": 4000, "stream": True}
    async with gateway.stream("POST", "/v1/chat/completions", json=body) as answer:
        await anext(answer.aiter_bytes())
    request, call = await both(received)
    assert request.events == {"client disconnected": {}}
    assert call.events == {"closed before its end": {}}


async def test_a_lost_engine_is_an_error_of_both(
    gateway: httpx.AsyncClient, simulator: Simulator, received: Collector
) -> None:
    """The replica's retries are events of its span."""
    simulator.fault(kind="cut", after_tokens=0, times=3)
    answer = await gateway.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 502
    await eventually(lambda: received.roots and len(received.named("answer call")) == 2)
    calls = received.named("answer call")
    assert {call.attributes["error.type"] for call in calls} == {"EngineLost"}
    assert {call.status for call in (*received.roots, *calls)} == {"ERROR"}
    assert received.roots[0].events == {"retry": {"error.type": "EngineLost"}}
    assert "retry" in calls[0].events
