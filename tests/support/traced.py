"""Requests of a traced service, and their spans."""

from typing import Any

import httpx

from tests.support.otlp import Collector, Received
from tests.support.service import Service
from tests.support.waiting import eventually

MODEL = "smollm2:135m"
HELLO = [{"role": "user", "content": "hello there"}]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # of a caller


async def root(received: Collector) -> Received:
    """Wait for the span of the only request and return it."""
    await eventually(lambda: received.roots)
    (span,) = received.roots
    return span


async def chat(
    service: Service, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 5, **more}
    return await service.post("/v1/chat/completions", json=body, headers=headers)
