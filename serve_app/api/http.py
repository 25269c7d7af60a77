"""HTTP on top of ASGI, as far as the API needs it: a request, its body, a JSON answer."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

import orjson

from serve_app.deadline import Deadline
from serve_app.errors import BadRequest, BodyTimeout, BodyTooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json; charset=utf-8"

# A server's function in a request's scope: calls a given function once the caller disconnects, and
# returns a function that stops the watch.
WATCH = "serve_app.watch"
# A server's function in a request's scope: returns the body if all of it has come, else None.
WHOLE_BODY = "serve_app.whole_body"
# A caller that sets it to `?1` tells Serve not to watch for its disconnect.
UNWATCHED = b"x-request-disconnect-disabled"


class ClientGone(Exception):
    """The client disconnected before its request was complete."""


class Request:
    """One HTTP request. Among headers with the same name, the last one counts."""

    __slots__ = (
        "_forget",
        "_query",
        "_watch",
        "_whole_body",
        "all_headers",
        "headers",
        "method",
        "path",
        "raw_path",
        "receive",
        "request_id",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes | None = scope.get("raw_path")
        self._watch: Callable[[Callable[[], object]], Callable[[], None]] | None = scope.get(WATCH)
        self._forget: Callable[[], object] | None = None
        self._whole_body: Callable[[], bytes | None] | None = scope.get(WHOLE_BODY)
        self._query: bytes = scope.get("query_string", b"")
        self.all_headers: Headers = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self.all_headers)
        # Serve sets this header before the API runs, and the answer's after it.
        self.request_id = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.receive = receive

    def watch_caller(self) -> None:
        """Cancel the running task when the caller disconnects, where Serve does not watch for that.

        Call it once the body has been read.
        """
        if self._watch:
            self._forget = self._watch(_current_task().cancel)
        elif self.headers.get(UNWATCHED) == b"?1":
            task = _current_task()
            self._forget = asyncio.create_task(_cancel_at_disconnect(task, self.receive)).cancel

    def take_whole_body(self) -> bytes | None:
        """Return the body if all of it has come already, else None. Call it once."""
        return self._whole_body() if self._whole_body else None

    def answered(self) -> None:
        """Stop watching the caller."""
        if self._forget:
            self._forget()

    @property
    def query(self) -> str:
        """The part of the address behind `?`."""
        return self._query.decode("latin-1")

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task
    return task


async def _cancel_at_disconnect(task: asyncio.Task[Any], receive: Receive) -> None:
    with suppress(Exception):  # an error of `receive` means that the proxy is gone
        while (await receive())["type"] != "http.disconnect":
            pass
    task.cancel()


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """Read the body, at most `max_bytes`.

    Raises BodyTooLarge (before reading where the length is declared), BodyTimeout when the body is
    incomplete after `timeout_s`, BadRequest when it is compressed, ClientGone on a disconnect.
    """
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise BadRequest("compressed request bodies are not supported: send plain JSON")
    length = request.headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    if (body := request.take_whole_body()) is not None:
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    try:
        with Deadline.after(timeout_s):
            return await _collect(request.receive, max_bytes)
    except TimeoutError as exc:
        raise BodyTimeout(f"the request body did not arrive within {timeout_s:g} s") from exc


async def _collect(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await _next(receive)
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _next(receive: Receive) -> Message:
    """Receive a message. Raises ClientGone when Serve's proxy, and so the caller, is gone."""
    try:
        return await receive()
    except Exception as exc:
        raise ClientGone from exc


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {max_bytes / 2**20:g} MiB")


async def send_body(
    send: Send,
    status: int,
    body: bytes,
    headers: Headers | tuple[tuple[bytes, bytes], ...],
    more: bool = False,
) -> None:
    """Send an answer. `more`: leave its end unannounced, though the body is complete."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def linger(receive: Receive, seconds: float) -> None:
    """Read and drop the rest of the request for up to `seconds`.

    Closed at once, the connection would be reset before the caller has read the answer.
    """
    with suppress(TimeoutError, ClientGone):
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await _next(receive)
                more = message.get("more_body", False)


async def send_json(send: Send, value: Any, status: int = 200) -> None:
    await send_body(send, status, orjson.dumps(value), [(b"content-type", JSON)])
