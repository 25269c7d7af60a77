"""The protocol between a gateway and a replica: calls and answers as frames on a connection.

    gateway ──CALL──────────────────────────────> replica
            <──HEAD, DATA …, END── or ──FAILURE──         one call at a time, then the next

Serve's own streams cost as much for each piece as for a request, and their cancellation does not
always arrive. Here a piece costs one write, and a caller's disconnect closes the connection.

A frame is its kind (one byte), the length of its content (four, big-endian), and the content.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import NamedTuple, Self, cast

import orjson

from serve_app import errors
from serve_app.engines.base import MAX_TRIES, Call, Flow, Priority
from serve_app.errors import EngineError, EngineLost, Overloaded, ServiceError

CALL, HEAD, DATA, END, FAILURE, TOKEN = b"C", b"H", b"D", b"E", b"F", b"T"
# On a connection of its own, see dispatch/reports.py: a replica's report, and the gateway's reply.
REPORT, SPARE = b"R", b"S"
# Behind the token: the connection has one of the places that a replica reserves.
NOT_FOR_BATCH = b"R"
TAKES_BATCH = b"A"
_HEADER = struct.Struct(">cI")
HEADER_BYTES = _HEADER.size
MAX_NAME_BYTES = 64
_MAX_BUFFERED = 1 << 18


class ChannelClosed(EngineLost):
    """Raised when the other side has closed the connection."""


@dataclass(frozen=True, slots=True)
class Head:
    """The part of an answer before its body.

    `seconds_left`: until the answer must have ended. `queued_s`, `replica`: see Answer.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    seconds_left: float | None
    queued_s: float = 0.0
    replica: str = ""

    def encode(self) -> bytes:
        headers = _texts(self.headers)
        return orjson.dumps((self.status, headers, self.seconds_left, self.queued_s, self.replica))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        status, headers, *rest = orjson.loads(data)
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return cls(status, tuple(pairs), *rest)


@lru_cache(maxsize=256)  # an engine's answers have one of few heads
def _texts(headers: tuple[tuple[bytes, bytes], ...]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


class Hop(NamedTuple):
    """The part of a call that depends on the replica that gets it: see the fields of Call."""

    tries: int = MAX_TRIES
    blocks: bytes = b""
    unread_tokens: float = 0.0


def name_token(token: bytes, replica: str, *, takes_batch: bool = True) -> bytes:
    """Return a replica's first message: the gateway's token, a mark, its own name."""
    mark = TAKES_BATCH if takes_batch else NOT_FOR_BATCH
    return token + mark + replica.encode()[:MAX_NAME_BYTES]


def encode_failure(exc: ServiceError) -> bytes:
    engines = exc.engines if isinstance(exc, EngineError) else 0
    return orjson.dumps((type(exc).__name__, exc.args, exc.retry_after_s, engines))


def decode_failure(data: bytes) -> ServiceError:
    name, args, retry_after_s, engines = orjson.loads(data)
    if name == Overloaded.__name__:
        return Overloaded(args[0], retry_after_s or 1)
    kind = getattr(errors, name, EngineLost)
    error: ServiceError = kind(*args)
    if isinstance(error, EngineError):
        error.engines = max(kind.engines, engines)
    return error


def encode_call(call: Call, hop: Hop) -> bytes:
    """Return one line of JSON with most fields, then the blocks and the body unchanged."""
    flow = call.flow
    rest = (
        *(call.path, call.model, call.stream, call.takes_slot, call.request_id),
        *(call.affinity, call.headers, hop.tries, call.service, _seconds_left(call.deadline)),
        (flow.key, flow.group, flow.weight, flow.group_weight, flow.priority),
        *(hop.unread_tokens, len(hop.blocks)),
    )
    return orjson.dumps(rest, option=orjson.OPT_APPEND_NEWLINE) + hop.blocks + call.body


def decode_call(data: bytes) -> Call:
    line, _, body = data.partition(b"\n")
    path, model, *rest, tries, service, seconds_left, flow, unread, size = orjson.loads(line)
    blocks, body = (body[:size], body[size:]) if size else (b"", body)
    stream, takes_slot, request_id, affinity, headers = rest
    return Call(
        *(path, model, body, stream, takes_slot, request_id, affinity),
        tuple((name, value) for name, value in headers),
        tries,
        _flow(*flow),
        service,
        None if seconds_left is None else monotonic() + seconds_left,
        blocks=blocks,
        unread_tokens=unread,
    )


@lru_cache(maxsize=4096)  # a key's calls are many
def _flow(key: str, group: str, weight: float, group_weight: float, priority: str) -> Flow:
    return Flow(key, group, weight, group_weight, Priority(priority))


def _seconds_left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - monotonic()


class Channel(asyncio.Protocol):
    """Sends and receives frames, at either end of a connection.

    `max_bytes` bounds a frame of an unauthenticated side; None: no bound.
    """

    def __init__(
        self,
        opened: "Callable[[Channel], None]" = lambda channel: None,
        max_bytes: int | None = None,
    ) -> None:
        self.max_bytes = max_bytes
        self._opened = opened
        self._rest = bytearray()
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._buffered = 0
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None  # None: no need to wait
        self._reading = True
        self.closed = False
        self.takes_batch = True
        self.peer = ""  # name of the replica at the other side
        self.on_close: Callable[[], object] = lambda: None

    async def receive(self) -> tuple[bytes, bytes]:
        """Return the next frame's kind and content. Raises ChannelClosed after the last one."""
        while not self._frames:
            if self.closed:
                raise ChannelClosed("the replica was lost")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._pop()

    def _pop(self) -> tuple[bytes, bytes]:
        kind, content = self._frames.popleft()
        self._buffered -= len(content)
        if not self._reading and self._buffered < _MAX_BUFFERED:
            self._reading = True
            self._transport.resume_reading()
        return kind, content

    def take(self, kind: bytes) -> bytes | None:
        """Return the next frame's content if it has arrived and is of this kind, else None."""
        if not self._frames or self._frames[0][0] != kind:
            return None
        return self._pop()[1]

    def send(self, *frames: tuple[bytes, bytes]) -> None:
        """Send in one write. On a closed connection this does nothing: `receive` raises."""
        if self.closed:
            return  # uvloop's transport would raise
        parts: list[bytes] = []
        for kind, content in frames:
            parts += _HEADER.pack(kind, len(content)), content
        self._transport.write(b"".join(parts))

    @property
    def is_full(self) -> bool:
        """Whether the other side reads more slowly than this one sends."""
        return self._writable is not None

    async def drain(self) -> None:
        """Wait until the other side has read enough to take more."""
        if self._writable:
            await self._writable

    def close(self) -> None:
        """Close at once: the other side may never read the rest."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        if self.max_bytes is not None and len(self._rest) + len(data) > self.max_bytes:
            self.close()
            return
        if self._rest:
            self._rest += data
            del self._rest[: self._cut_frames(self._rest)]
        elif (end := self._cut_frames(data)) < len(data):
            self._rest += data[end:]
        if self._buffered > _MAX_BUFFERED and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._wake()

    def _cut_frames(self, data: bytes | bytearray) -> int:
        """Queue the complete frames at the beginning of `data`; return where they end."""
        at, length = 0, len(data)
        while length - at >= HEADER_BYTES:
            kind, size = _HEADER.unpack_from(data, at)
            begin, end = at + HEADER_BYTES, at + HEADER_BYTES + size
            if length < end:
                break
            self._frames.append((kind, bytes(data[begin:end])))
            self._buffered += size
            at = end
        return at

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._wake()
        self.resume_writing()
        self.on_close()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable and not writable.done():
            writable.set_result(None)

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
