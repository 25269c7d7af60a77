"""Headers that say how urgent a request is."""

import asyncio
from typing import Any

import httpx
import pytest

from serve_app.api.http import Request
from serve_app.api.urgency import flow_of
from serve_app.engines.base import Flow, Priority
from serve_app.errors import BadRequest
from tests.support.service import Service, Simulator, serving
from tests.support.waiting import eventually

CHAT: dict[str, Any] = {
    "model": "smollm2:135m",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}


def request(**headers: str) -> Request:
    pairs = [(n.replace("_", "-").encode(), value.encode()) for n, value in headers.items()]
    return Request({"method": "POST", "path": "/", "headers": pairs}, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "wish", "priority"),
    [
        ("standard", "batch", "batch"),
        ("standard", "Batch", "batch"),
        ("interactive", "standard", "standard"),
        ("batch", "interactive", "batch"),
        ("standard", "interactive", "standard"),
    ],
)
def test_a_header_lowers_a_priority_and_never_raises_it(own: str, wish: str, priority: str) -> None:
    flow = flow_of(request(x_priority=wish), Flow("a", priority=Priority(own)))
    assert flow.priority == priority


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("x-priority", value) for value in ("", "urgent", "0", "x" * 100_000)),
        *(("x-request-timeout-ms", value) for value in ("", "-1", "1.5", "nan", "9" * 100_000)),
    ],
)
async def test_a_value_without_a_meaning_is_400(
    service: Service, simulator: Simulator, name: str, value: str
) -> None:
    """The answer names the header, and nothing reaches the engine."""
    answer = await service.post("/api/chat", json=CHAT, headers={name: value[:30_000]})
    assert answer.status_code == 400
    assert name in answer.text
    assert len(answer.text) < 400
    assert simulator.reached == {}


def test_a_key_in_the_wrong_header_is_not_shown() -> None:
    with pytest.raises(BadRequest, match=r"not 'sk-\*\*\*'$"):
        flow_of(request(x_priority="sk-llm-0123456789"), Flow("a"))


async def busy(service: Service, simulator: Simulator) -> "asyncio.Task[httpx.Response]":
    """Fill the one slot with a request that stays until its task is cancelled."""
    simulator.fault(kind="stall", after_tokens=0, for_s=30)
    task = asyncio.create_task(service.post("/api/chat", json=CHAT))
    await eventually(lambda: simulator.reached == {"/api/chat": 1})
    return task


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-request-timeout-ms", "50"),
        ("x-stainless-read-timeout", "0.05"),
        ("x-stainless-timeout", "0.05"),
    ],
)
async def test_a_request_leaves_the_queue_at_its_deadline(
    simulator: Simulator, name: str, value: str
) -> None:
    """It is answered with 504 and never reaches the engine."""
    async with serving(simulator, slots=1, queue=5) as service:
        task = await busy(service, simulator)
        answer = await service.post("/api/chat", json=CHAT, headers={name: value})
        assert (answer.status_code, simulator.reached) == (504, {"/api/chat": 1})
        assert service.noted.last.outcome == "timeout"
        task.cancel()


@pytest.mark.parametrize("value", ["NOT_GIVEN", "None", "inf", "-1", "Timeout(timeout=5)"])
async def test_a_client_without_a_time_out_is_served(service: Service, value: str) -> None:
    """The official clients write what they have, which need not be a number."""
    answer = await service.post("/api/chat", json=CHAT, headers={"x-stainless-timeout": value})
    assert answer.status_code == 200
