"""Sends pings until the engine begins, so that no proxy or client thinks the stream dead."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson

from serve_app.api.endpoint import Payload
from serve_app.api.http import Message, Send
from serve_app.api.rate_headers import Pairs
from serve_app.errors import EngineLost

T = TypeVar("T")

# From the first second of waiting to the first ping, and from ping to ping.
EVERY_S = 10.0
_HEADERS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))


class Pings:
    """A `send` that pings while an answer is awaited.

    The first ping is the status line 200, with more `headers` than those of every stream.
    Everything after it is part of this stream: `event` turns an unstreamed answer into one event.
    """

    def __init__(
        self,
        send: Send,
        ping: bytes,
        event: Callable[[Payload], bytes],
        headers: Callable[[], Pairs] = tuple,
    ) -> None:
        self._send = send
        self._ping = ping
        self._event = event
        self._headers = headers
        self._is_stream = True
        self.begun = False

    async def until(self, awaited: Awaitable[T]) -> T:
        """Return the result of the awaitable; ping meanwhile."""
        pinging = asyncio.create_task(self._ping_often())
        try:
            return await awaited
        finally:
            pinging.cancel()
            await asyncio.wait({pinging})  # a ping is sent whole

    async def end(self, event: bytes) -> None:
        """Send a last event."""
        await self._send({"type": "http.response.body", "body": event, "more_body": False})

    async def __call__(self, message: Message) -> None:
        if not self.begun:
            await self._send(message)
        elif message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            # Ollama gives errors this type as well.
            self._is_stream = message["status"] == 200 and kind.startswith(b"text/event-stream")
        elif self._is_stream:
            await self._send(message)
        else:
            await self.end(self._event(_error_in(message["body"])))

    async def _ping_often(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if not self.begun:
                self.begun = True
                headers = [*_HEADERS, *self._headers()]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": self._ping, "more_body": True})


def _error_in(body: bytes) -> Payload:
    """Return the JSON object that an engine gave in place of a stream. Raises EngineLost."""
    try:
        error = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise EngineLost("the engine's answer can't be read") from exc
    if not isinstance(error, dict):
        raise EngineLost("the engine's answer can't be read")
    return error
