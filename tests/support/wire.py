"""uvicorn's own protocol on a transport that notes each write."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serve_app.api.http import Message, Receive, Scope, Send
from serve_app.ray_serve.uvicorn_middleware import UvicornMiddleware


class Wire(asyncio.Transport):
    """A transport that notes each write, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class App:
    """Sends the given messages; `reads`: reads the body first."""

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


async def trace(app: App, request: bytes) -> Wire:
    """Answer `request` with `app` behind the middleware; return the connection afterwards."""
    config = uvicorn.Config(UvicornMiddleware(app), log_level="critical", server_header=False)
    config.load()
    protocol = HttpToolsProtocol(config, ServerState(), {})
    wire = Wire()
    protocol.connection_made(wire)
    protocol.data_received(request)
    async with asyncio.timeout(5):
        await app.done.wait()
        await asyncio.gather(*protocol.tasks)
    protocol.timeout_keep_alive_task and protocol.timeout_keep_alive_task.cancel()
    return wire


def get(method: str = "GET", headers: str = "") -> bytes:
    """Return a request without a body."""
    return f"{method} / HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()
