"""A collector over either protocol, and one that is away or slow."""

import logging

import httpx
import pytest

from serve_app.errors import SettingsError
from serve_app.tracing import exporters
from serve_app.tracing.exporters import Losses, span_exporter
from tests.support.otlp import Collector, sender
from tests.support.ports import own_port
from tests.support.service import Service, Simulator, serving

CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


async def chat(service: Service) -> httpx.Response:
    return await service.post("/v1/chat/completions", json=CHAT)


async def test_spans_go_out_over_grpc(simulator: Simulator, received: Collector) -> None:
    """Where the environment says so."""
    send = sender(received.grpc, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    async with serving(simulator, sender=send) as service:
        await chat(service)
    (span,) = received.roots
    assert span.name == "chat smollm2:135m"


def test_an_unknown_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the ones that there are."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(SettingsError, match=r"http/json.*grpc"):
        span_exporter(None)


async def test_a_collector_that_is_away_costs_spans_alone(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are answered, the process ends all the same, and the SDK's loggers say nothing."""
    monkeypatch.setattr(exporters, "_STOP_S", 0.05)
    send = sender(f"http://127.0.0.1:{own_port()}", OTEL_EXPORTER_OTLP_TIMEOUT="60")
    with caplog.at_level(logging.WARNING):
        async with serving(simulator, sender=send) as service:
            assert (await chat(service)).status_code == 200
    lines = [record.message for record in caplog.records if record.name.startswith("opentel")]
    assert lines == []


async def test_a_slow_collector_fills_a_queue_that_has_a_bound(
    simulator: Simulator,
    received: Collector,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More requests lose all their spans, and are as fast as ever."""
    monkeypatch.setattr(exporters, "_STOP_S", 0.05)
    received.holds = True
    sizes = {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
    send = sender(received.http, **sizes)
    try:
        with caplog.at_level(logging.WARNING):
            async with serving(simulator, sender=send) as service:
                assert {(await chat(service)).status_code for _ in range(8)} == {200}
    finally:
        received.holds = False
        received.go_on.set()
    lost = [record.message for record in caplog.records if "lost" in record.message]
    assert lost == ["lost spans (4): the OpenTelemetry collector is away or slow"]


def test_losses_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The first at once, those of a minute together."""
    now = 1000.0
    losses = Losses("spans", lambda: now)
    for second in range(121):
        now = 1000.0 + second
        losses.add(10)
    assert [record.args[1] for record in caplog.records] == [10, 600, 600]  # type: ignore[index]
