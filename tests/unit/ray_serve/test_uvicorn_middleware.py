"""What stands between uvicorn and Serve, on uvicorn's own protocol."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serve_app.api.http import UNWATCHED, Message, Receive, Scope, Send
from serve_app.ray_serve.uvicorn_middleware import UvicornMiddleware

HEAD: Message = {"type": "http.response.start", "status": 200, "headers": []}
STREAM: list[Message] = [
    HEAD,
    {"type": "http.response.body", "body": b"one", "more_body": True},
    {"type": "http.response.body", "body": b"two", "more_body": True},
    {"type": "http.response.body", "body": b""},
]
WHOLE: list[Message] = [
    HEAD | {"headers": [(b"content-length", b"3")]},
    {"type": "http.response.body", "body": b"all"},
]
EMPTY: list[Message] = [HEAD | {"status": 204}, {"type": "http.response.body", "body": b""}]


class Wire(asyncio.Transport):
    """A transport that notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class App:
    def __init__(self, messages: list[Message], reads: bool = False) -> None:
        self._messages = messages
        self._reads = reads
        self.headers: list[tuple[bytes, bytes]] = []
        self.done = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = scope["headers"]
        if self._reads:
            await receive()
        try:
            for message in self._messages:
                await send(message)
        finally:
            self.done.set()


async def trace(app: App, request: bytes) -> list[bytes]:
    """The writes with which uvicorn answers."""
    config = uvicorn.Config(UvicornMiddleware(app), log_level="critical", server_header=False)
    config.load()
    protocol = HttpToolsProtocol(config, ServerState(), {})
    wire = Wire()
    protocol.connection_made(wire)
    protocol.data_received(request)
    async with asyncio.timeout(5):
        await app.done.wait()
    protocol.timeout_keep_alive_task and protocol.timeout_keep_alive_task.cancel()
    return wire.writes


def get(method: str = "GET", headers: str = "") -> bytes:
    return f"{method} / HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()


@pytest.mark.parametrize(
    ("messages", "ends"),
    [
        (STREAM, [b"\r\n\r\n3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"]),
        (WHOLE, [b"\r\n\r\nall"]),
        (EMPTY, [b"\r\n\r\n"]),
    ],
    ids=["stream", "whole", "empty"],
)
async def test_the_head_goes_with_the_first_piece(
    messages: list[Message], ends: list[bytes]
) -> None:
    writes = await trace(App(messages), get())
    assert len(writes) == len(ends)
    assert writes[0].startswith(b"HTTP/1.1 20")
    assert all(write.endswith(end) for write, end in zip(writes, ends, strict=True))


async def test_a_head_that_no_body_follows_is_not_held() -> None:
    (write,) = await trace(App(WHOLE), get("HEAD"))
    assert write.endswith(b"content-length: 3\r\n\r\n")


async def test_100_continue_is_not_held() -> None:
    """The caller waits for it before it sends its body."""
    request = get("POST", "Expect: 100-continue\r\nContent-Length: 2\r\n") + b"{}"
    writes = await trace(App(WHOLE, reads=True), request)
    assert writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert writes[1].endswith(b"\r\n\r\nall")


async def test_a_failure_after_the_head_is_no_answer() -> None:
    """HAProxy makes a 502 of the closed connection; a head alone would be half a success."""
    app = App([HEAD, HEAD])  # uvicorn raises at the second
    assert await trace(app, get()) == []


async def test_serve_need_not_watch_nor_make_an_id() -> None:
    app = App(WHOLE)
    await trace(app, get(headers="x-request-disconnect-disabled: ?0\r\n"))
    headers = dict(app.headers)
    assert headers[UNWATCHED] == b"?1"
    assert len(headers[b"x-request-id"]) == 32


async def test_a_callers_own_id_stays() -> None:
    app = App(WHOLE)
    await trace(app, get(headers="X-Request-Id: mine\r\n"))
    assert [value for name, value in app.headers if name == b"x-request-id"] == [b"mine"]


async def test_an_empty_id_is_none() -> None:
    app = App(WHOLE)
    await trace(app, get(headers="X-Request-Id:\r\n"))
    (own,) = [value for name, value in app.headers if name == b"x-request-id"]
    assert len(own) == 32
