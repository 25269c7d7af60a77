"""Streams that wait for their engine get pings, where the settings say so."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from serve_app.api import pings
from tests.support.service import Service, Simulator, serving
from tests.support.waiting import eventually
from tests.unit.api.test_streams import ERROR, FINAL, body

PING = {"/v1/messages": b'event: ping\ndata: {"type": "ping"}\n\n'}
SSE = [path for path in ERROR if path.startswith("/v1/")]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pings, "EVERY_S", 0.01)


class Occupied:
    """A service whose only slot is taken until `free` is called."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            path = "/v1/chat/completions"
            await self.service.post(path, json=body(path))

    async def taken(self, simulator: Simulator) -> None:
        """Return when the engine has the request; those after it find no fault."""
        await eventually(lambda: "/v1/chat/completions" in simulator.reached)
        simulator.fault(kind="none")

    async def free(self) -> None:
        self._running.cancel()
        await self._running

    async def read(self, path: str, frees: bool = True) -> tuple[int, str, bytes]:
        """Return status, content type and body of a stream; free the slot after some pings."""
        pinged = 3 if frees else 1
        content, ping = b"", PING.get(path, b": ping\n\n")
        async with self.service.stream("POST", path, json=body(path)) as answer:
            async for chunk in answer.aiter_bytes():
                content += chunk
                if frees and content == ping * pinged:
                    await self.free()
        assert content.startswith(ping * pinged)
        kind = answer.headers["content-type"]
        return answer.status_code, kind, content.replace(ping, b"")


async def occupied(simulator: Simulator, **settings: Any) -> AsyncIterator[Occupied]:
    async with serving(simulator, slots=1, **settings) as service:
        simulator.fault(kind="stall", after_tokens=0, for_s=30)
        running = Occupied(service)
        await running.taken(simulator)
        yield running
        await running.free()


@pytest.fixture
async def pinging(simulator: Simulator) -> AsyncIterator[Occupied]:
    async for running in occupied(simulator, loading_pings=True):
        yield running


@pytest.fixture
async def impatient(simulator: Simulator) -> AsyncIterator[Occupied]:
    async for running in occupied(simulator, loading_pings=True, queue_timeout_s=0.1):
        yield running


@pytest.mark.parametrize("path", SSE)
async def test_a_stream_that_waits_is_pinged(pinging: Occupied, path: str) -> None:
    """Then the engine's own stream follows whole, and only its bytes count as the first."""
    status, kind, content = await pinging.read(path)
    assert (status, kind) == (200, "text/event-stream")
    assert content.endswith(FINAL[path])
    noted = pinging.service.noted.last
    assert (noted.outcome, noted.usage.generated) == ("ok", 12)
    assert noted.ttft is not None
    assert noted.ttft > 3 * pings.EVERY_S


@pytest.mark.parametrize("path", SSE)
async def test_a_failure_after_a_ping_is_an_event(impatient: Occupied, path: str) -> None:
    """Of the dialect: the status line is out."""
    status, _, content = await impatient.read(path, frees=False)
    assert status == 200
    assert content.startswith(ERROR[path])
    assert b"no slot became free" in content
    assert impatient.service.noted.ended_exchanges[0].outcome == "rejected"


async def test_an_engines_error_after_a_ping_is_an_event(
    pinging: Occupied, simulator: Simulator
) -> None:
    """Its JSON is no stream."""
    simulator.fault(kind="refuse", times=1)
    _, _, content = await pinging.read("/v1/messages")
    assert content.startswith(b"event: error\ndata: ")
    assert json.loads(content.partition(b"data: ")[2])["type"] == "error"


async def test_who_hangs_up_is_pinged_no_more(pinging: Occupied) -> None:
    """And waits no more."""
    path = "/v1/chat/completions"
    async with pinging.service.stream("POST", path, json=body(path)) as answer:
        await anext(answer.aiter_bytes())
        assert sum(pinging.service.admission.waiting_by_flow().values()) == 1
    await eventually(lambda: not pinging.service.admission.waiting_by_flow())
    assert pinging.service.noted.last.outcome == "cancelled"


@pytest.mark.parametrize(("path", "stream"), [("/api/chat", True), ("/v1/chat/completions", False)])
async def test_other_answers_get_no_pings(impatient: Occupied, path: str, stream: bool) -> None:
    """Neither lines of JSON nor an answer of one object: they fail with a status."""
    answer = await impatient.service.post(path, json=body(path, stream))
    assert answer.status_code == 503


async def test_pings_are_off_by_default(simulator: Simulator) -> None:
    """A stream that fails before its engine begins has the error's status."""
    async for running in occupied(simulator, queue_timeout_s=0.1):
        path = "/v1/chat/completions"
        assert (await running.service.post(path, json=body(path))).status_code == 503
