"""The short way of a request, on uvicorn's own connection before a stand-in of Serve's replica."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from serve_app.api.http import WHOLE_BODY, Receive, Request, Scope, Send, read_body, send_body
from serve_app.ray_serve.direct_ingress import DirectIngress
from serve_app.ray_serve.http_protocol import HttpProtocol
from tests.support.wire import Wire, get

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


class Replica:
    """Serve's replica and metrics, as the short way uses them. `answers`: of its application."""

    def __init__(self, answers: str = "whole") -> None:
        self._answers = answers
        self.room = True
        self.entered = self.left = 0
        self.bodies: list[tuple[bool, bytes]] = []  # whether the whole body had come, and the body
        self.records: list[tuple[str, int, str]] = []
        self.cycles: list[weakref.ref[Any]] = []  # of uvicorn: a request and its answer

    def has_room(self) -> bool:
        return self.room

    def enter(self, request_id: str) -> None:
        self.entered += 1

    def leave(self) -> None:
        self.left += 1

    def record(self, method: str, status: int, seconds: float, exception: str) -> None:
        self.records.append((method, status, exception))

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle: Any = receive
        self.cycles.append(weakref.ref(cycle.__self__))
        request = Request(scope, receive)
        body = scope[WHOLE_BODY]()
        had_come = body is not None
        self.bodies.append((had_come, body if had_come else await read_body(request, 9, 5)))
        if self._answers == "nothing":
            return
        if self._answers == "error":
            raise KeyError
        more = self._answers == "a part"
        if more:
            start = {"type": "http.response.start", "status": 200, "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": b"a part", "more_body": True})
        else:
            await send_body(send, 200, b"short", [])


class Serve:
    """The application around the short way."""

    def __init__(self, replica: Replica) -> None:
        self.short_way = DirectIngress(replica, replica)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_body(send, 200, b"long", [])


async def converse(replica: Replica, *parts: bytes) -> Wire:
    """Send the parts of a request, each in a turn of the event loop of its own."""
    config = uvicorn.Config(Serve(replica), log_level="critical", server_header=False)
    config.load()
    protocol: Any = HttpProtocol(config, ServerState(), {})
    wire = Wire()
    protocol.connection_made(wire)
    for part in parts:
        protocol.data_received(part)
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.gather(*protocol.tasks)
    protocol.timeout_keep_alive_task and protocol.timeout_keep_alive_task.cancel()
    return wire


@pytest.mark.parametrize(
    ("parts", "had_come"), [([HEAD + b"12345"], True), ([HEAD, b"123", b"45"], False)]
)
async def test_a_body_is_read_however_it_comes(parts: list[bytes], had_come: bool) -> None:
    """Together with the head it need not be awaited."""
    replica = Replica()
    wire = await converse(replica, *parts)
    assert replica.bodies == [(had_come, b"12345")]
    assert wire.writes[-1].endswith(b"\r\n\r\nshort")
    assert (replica.entered, replica.left) == (1, 1)
    assert replica.records == [("POST", 200, "")]


async def test_a_request_leaves_no_reference_cycle() -> None:
    """The collector has nothing to do for requests, so it may run seldom."""
    replica = Replica()
    gc.disable()
    try:
        await converse(replica, HEAD + b"12345", HEAD + b"67890")
        first, _ = replica.cycles
        assert first() is None
    finally:
        gc.enable()


async def test_each_request_has_an_id() -> None:
    """Its own, or a new one in place of none or an empty one."""
    for sent, kept in (
        (b"", False),
        (b"X-Request-Id: \r\n", False),
        (b"X-Request-Id: 7\r\n", True),
    ):
        (answer,) = (await converse(Replica(), get(headers=sent.decode()))).writes
        assert answer.count(b"x-request-id: ") == 1
        assert (b"x-request-id: 7\r\n" in answer) == kept


@pytest.mark.parametrize("request_", [get(), get(headers="X-Request-Timeout-Seconds: 3\r\n")])
async def test_serve_answers_without_room_or_with_a_wish_of_its_own(request_: bytes) -> None:
    """By its own way, which queues and times requests."""
    replica = Replica()
    replica.room = b"Timeout" in request_
    wire = await converse(replica, request_)
    assert wire.writes[-1].endswith(b"long")
    assert (replica.entered, replica.records) == (0, [])


@pytest.mark.parametrize(
    ("answers", "status", "error"),
    [("nothing", 0, ""), ("error", 0, "KeyError"), ("a part", 200, "")],
)
async def test_an_answer_that_is_left_unfinished_is_broken_off(
    answers: str, status: int, error: str
) -> None:
    """Before its first byte by a 500, after it by the end of the connection."""
    replica = Replica(answers)
    wire = await converse(replica, get())
    assert wire.closed
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 200" if status else b"HTTP/1.1 500")
    assert replica.left == 1
    assert replica.records == [("GET", status, error)]
