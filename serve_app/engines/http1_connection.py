"""One HTTP/1.1 connection to an engine, and the answer that it receives. The parser is llhttp, as
in uvicorn.
"""

import asyncio
from time import monotonic
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import httptools

from serve_app.engines.pieces import Pieces
from serve_app.errors import EngineLost

_MAX_BUFFERED = 1 << 18


class Origin:
    """Host, port and path of an engine's address such as `http://127.0.0.1:11434`."""

    __slots__ = ("host", "host_header", "path", "port", "secure")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self.path = parts.path.rstrip("/")
        self.host_header = parts.netloc.rpartition("@")[2]


class Owner(Protocol):
    """The owner of connections, which is called when their state changes."""

    def opened(self, connection: "Connection") -> None: ...

    def idle(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...


class Response:
    """An answer that is being received. Closing it before its end closes the connection."""

    __slots__ = ("_buffered", "_connection", "_error", "_pieces", "_waiter", "headers", "status")

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # lower-case names; the last of equal names counts
        self._connection: Connection | None = connection  # None after the end
        self._error: Exception | None = None
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._waiter: asyncio.Future[None] | None = None

    async def begin(self) -> None:
        while not self.status:
            if self._connection is None:
                raise EngineLost("the engine broke off the connection") from self._error
            await self._wait()

    async def piece(self) -> bytes:
        """Return the body received since the last call, b"" at its end. Raises EngineLost."""
        while not self._pieces:
            if self._error:
                raise EngineLost("the engine broke off the connection") from self._error
            if self._connection is None:
                return b""
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        if self._connection:
            self._connection.resume()
        return data

    def is_last(self) -> bool:
        """Tell whether the whole body has been read, its end included."""
        return self._connection is None and not self._pieces and self._error is None

    async def read(self) -> bytes:
        return b"".join([piece async for piece in Pieces(self.piece)])

    def close(self) -> None:
        if self._connection:
            self._connection.end()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def receive(self, data: bytes) -> bool:
        """Store a piece; tell whether the reader is far behind."""
        self._pieces.append(data)
        self._buffered += len(data)
        self._wake()
        return self._buffered > _MAX_BUFFERED

    def begun(self, status: int) -> None:
        self.status = status
        self._wake()

    def ended(self, error: Exception | None = None) -> None:
        self._connection, self._error = None, error
        self._wake()


class Connection(asyncio.Protocol):
    """One connection, for one answer at a time."""

    def __init__(self, owner: Owner, origin: Origin) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self._owner = owner
        self._response: Response | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._owner.opened(self)

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    def ask(self, request: bytes) -> Response:
        self._response = Response(self)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport.write(request)
        return self._response

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def end(self) -> None:
        if self._response:
            self._response.ended(ConnectionError("closed on this side"))
            self._response = None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            return self._transport.close()  # an answer without a request
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._finish(exc)
            self._transport.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.closed(self)
        is_complete = self._response is not None and self._ends_with_the_connection()
        self._finish(None if is_complete and exc is None else exc or ConnectionError("closed"))

    def _ends_with_the_connection(self) -> bool:
        """Tell whether the body has neither length nor chunks, so that the connection ends it."""
        assert self._response is not None
        headers = self._response.headers
        return bool(self._response.status) and not (
            b"content-length" in headers or b"transfer-encoding" in headers
        )

    def _finish(self, error: Exception | None) -> None:
        response, self._response = self._response, None
        if response:
            response.ended(error)

    # llhttp's callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response:
            self._response.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._response and status >= 200:
            self._response.begun(status)

    def on_body(self, data: bytes) -> None:
        if self._response and self._response.receive(data) and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._response is None:
            self._transport.abort()  # raises for a second answer to one request
        elif not self._response.status:
            self._response.headers.clear()  # 1xx: the answer is still to come
        else:
            self._end_message(self._parser.should_keep_alive())

    def _end_message(self, keep_alive: bool) -> None:
        self._finish(None)
        if keep_alive:
            self.resume()
            self.idle_since = monotonic()
            self._owner.idle(self)
        else:
            self._transport.close()
