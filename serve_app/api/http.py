"""The little of HTTP that the API needs on top of ASGI: a request, its body, a JSON answer."""

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

# Whoever sets it to `?1` has told Serve not to watch the caller.
UNWATCHED = b"x-request-disconnect-disabled"


class ClientGone(Exception):
    """The client hung up before its request was whole: nobody is left to answer."""


class Request:
    """One HTTP request: what handlers need of the ASGI scope. The last of equal headers counts."""

    __slots__ = ("_watch", "headers", "method", "path", "raw_path", "receive", "request_id")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes | None = scope.get("raw_path")
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        # Serve puts its request id there before us, and into the answer after us.
        self.request_id = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.receive = receive
        self._watch: asyncio.Task[None] | None = None

    def watch_caller(self) -> None:
        """Where Serve does not: cancel the running task when the caller goes. For read bodies."""
        if self.headers.get(UNWATCHED) == b"?1":
            task = asyncio.current_task()
            assert task
            self._watch = asyncio.create_task(_cancel_at_hang_up(task, self.receive))

    def answered(self) -> None:
        """Nothing is cancelled any more."""
        if self._watch:
            self._watch.cancel()

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")


async def _cancel_at_hang_up(task: asyncio.Task[Any], receive: Receive) -> None:
    with suppress(Exception):  # whatever it can't be received from is gone as well
        while (await receive())["type"] != "http.disconnect":
            pass
    task.cancel()


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, at most `max_bytes`.

    Raises BodyTooLarge (before reading when the length is declared), BodyTimeout when it is not
    whole after `timeout_s`, BadRequest when it is compressed, ClientGone on a hang-up.
    """
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise BadRequest("compressed request bodies are not supported: send plain JSON")
    length = request.headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    try:
        with Deadline.after(timeout_s):
            return await _collect(request.receive, max_bytes)
    except TimeoutError as exc:
        raise BodyTimeout(f"the request body did not arrive within {timeout_s:g} s") from exc


async def _collect(receive: Receive, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await _next(receive)
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _next(receive: Receive) -> Message:
    """Raises ClientGone when it can't be received from: Serve's proxy is gone, and the caller."""
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
    """`more`: the answer is whole, but its end is not announced yet."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def linger(receive: Receive, seconds: float) -> None:
    """Read on and forget: closed at once, the connection would be reset before the caller, still
    sending, has read our answer."""
    with suppress(TimeoutError, ClientGone):
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await _next(receive)
                more = message.get("more_body", False)


async def send_json(send: Send, value: Any, status: int = 200) -> None:
    await send_body(send, status, orjson.dumps(value), [(b"content-type", JSON)])
