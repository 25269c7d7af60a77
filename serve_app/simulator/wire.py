"""An HTTP/1.1 server: keep-alive, chunks, and cancellation when the client disconnects."""

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote

import httptools

Headers = Sequence[tuple[str, str]]

JSON = "application/json; charset=utf-8"
EVENT_HEADERS: Headers = (("Cache-Control", "no-cache"), ("Connection", "keep-alive"))


@dataclass(slots=True)
class HttpRequest:
    """A request with its whole body."""

    method: str = ""
    target: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    keep_alive: bool = True

    @property
    def path(self) -> str:
        """The decoded path without the query."""
        path = self.target.partition("?")[0]
        return unquote(path) if "%" in path else path


class HttpResponse:
    """One response: either `whole`, or `begin`, `send` any number of times, and `end`."""

    __slots__ = ("_connection", "_head", "_request", "started")

    def __init__(self, connection: "ClientConnection", request: HttpRequest) -> None:
        self._connection = connection
        self._request = request
        self._head = b""
        self.started = False

    def whole(
        self, body: bytes, content_type: str = JSON, *, status: int = 200, headers: Headers = ()
    ) -> None:
        length = ("Content-Length", str(len(body)))
        head = self._headline(status, content_type, headers, length)
        self._connection.write(head if self._request.method == "HEAD" else head + body)

    def begin(self, content_type: str, *, status: int = 200, headers: Headers = ()) -> None:
        """Prepare a chunked body; the head goes out with the first chunk."""
        chunked = ("Transfer-Encoding", "chunked")
        self._head = self._headline(status, content_type, headers, chunked)
        self.started = True

    def send(self, chunks: Sequence[bytes]) -> None:
        """Send each of `chunks` as one HTTP chunk, all in one write."""
        self._connection.write(self._head + _frames(chunks))
        self._head = b""

    def end(self, chunks: Sequence[bytes] = ()) -> None:
        self._connection.write(self._head + _frames(chunks) + b"0\r\n\r\n")

    def _headline(
        self, status: int, content_type: str, headers: Headers, framing: tuple[str, str]
    ) -> bytes:
        # Go's order: the handler's headers by name, then those of the server.
        named = [*headers, ("Content-Type", content_type)] if content_type else [*headers]
        lines = [*sorted(named), ("Date", _date(int(time.time()))), framing]
        if not self._request.keep_alive:
            lines.append(("Connection", "close"))
        fields = "".join([f"{name}: {value}\r\n" for name, value in lines])
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{fields}\r\n".encode()


def _frames(chunks: Sequence[bytes]) -> bytes:
    return b"".join([b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks])


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


HttpHandler = Callable[[HttpRequest, HttpResponse], Awaitable[None]]


class ClientConnection(asyncio.Protocol):
    """The connection of one client. Answers requests in order; a disconnect cancels them."""

    def __init__(self, handle: HttpHandler, connections: "set[ClientConnection]") -> None:
        self._handle = handle
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[HttpRequest] = deque()
        self._request = HttpRequest()
        self._body: list[bytes] = []

    # asyncio.Protocol, without `eof_received`: a half-close is a disconnect, as for Ollama

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        self._connections.discard(self)
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
            self.close()

    # callbacks of httptools

    def on_message_begin(self) -> None:
        self._request = HttpRequest()
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers.append((name.decode("latin-1"), value.decode("latin-1")))
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        request.method = self._parser.get_method().decode()
        request.keep_alive = self._parser.should_keep_alive()
        request.body = b"".join(self._body)
        self._waiting.append(request)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer_all())

    # for the responses

    def write(self, data: bytes) -> None:
        if self._transport and data:
            self._transport.write(data)

    def close(self) -> None:
        """Close once all written bytes are sent. A chunked response stays without its end."""
        if self._transport:
            self._transport.close()

    def new_response(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(self, request)

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                request = self._waiting.popleft()
                await self._handle(request, self.new_response(request))
                if not request.keep_alive:
                    self.close()
        except Exception:
            traceback.print_exc()
            self.close()
        finally:
            self._task = None
