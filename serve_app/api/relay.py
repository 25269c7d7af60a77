"""Engine bytes to client bytes, undecoded; and the proof that an answer is whole."""

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.deadline import Deadline
from serve_app.engines.base import Answer
from serve_app.errors import EngineLost, EngineSlow, InternalError, ServiceError

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Enough for any final event but a Responses one, which repeats the whole text.
TAIL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the engine counted them; None where it did not say. Prompt includes cached."""

    prompt: int | None = None
    generated: int | None = None
    cached: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """What the last bytes of an answer prove.

    `whole`: it has its final marker. `told`: the engine itself said that it failed.
    """

    complete: bool
    error_sent: bool = False
    usage: Usage = field(default=Usage())


class Tail:
    """The last bytes of a stream, held by reference: nothing is copied until the end."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size - len(self._pieces[0]) >= TAIL_BYTES:
            self._size -= len(self._pieces.popleft())

    def join(self) -> bytes:
        return b"".join(self._pieces)


class Events:
    """Cuts a stream where its events end, so that an error event never lands inside another one.

    An event of `text/event-stream` ends with an empty line, one of any other type with its line.
    """

    __slots__ = ("_ends", "held")

    def __init__(self, content_type: bytes) -> None:
        self.held = b""
        sse = content_type.startswith(b"text/event-stream")
        self._ends = (b"\n\n", b"\n\r\n") if sse else (b"\n",)

    def whole(self, piece: bytes) -> bytes:
        """The whole events so far; the rest is held until its event ends."""
        if not self.held and piece.endswith(self._ends):
            return piece
        piece = self.held + piece
        cut = max(_behind_last(end, piece) for end in self._ends)
        self.held = piece[cut:]
        return piece[:cut]

    def rest(self) -> bytes:
        """Return the held bytes as a last event, with the line ends that it lacks."""
        missing = b"" if not self.held else self._ends[0][self.held.endswith(b"\n") :]
        return self.held + missing


def _behind_last(end: bytes, piece: bytes) -> int:
    found = piece.rfind(end)
    return 0 if found < 0 else found + len(end)


async def relay_stream(
    answer: Answer,
    send: Send,
    stream_end: Callable[[bytes], End],
    error_event: Callable[[ServiceError, bytes], bytes],
    on_piece: Callable[[], None],
) -> tuple[End, ServiceError | None]:
    """Send a streamed answer on as it comes.

    An answer that breaks off, or ends without its final marker, gets one error event: `error_event`
    writes it, given the end of what was sent. Returns what the end proved and the error that the
    client was told, if any: an InternalError has the exception that nobody foresaw as its cause.
    """
    kind = dict(answer.headers).get(b"content-type", b"")
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": list(answer.headers),
        }
    )
    tail, events, last = Tail(), Events(kind), b""
    error: ServiceError | None = None
    try:
        with Deadline(answer.deadline):
            async for piece in answer.body:
                on_piece()
                piece = events.whole(piece)
                if answer.is_last():
                    last = piece  # goes with the end: one write less
                elif piece:
                    tail.add(piece)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError:
        error = EngineSlow("the generation took longer than the service allows")
        answer.close()  # the client may never take its end
    except ServiceError as exc:
        error = exc
    except Exception as exc:
        error = _unexpected(exc)
    tail.add(last + events.held)
    end, error = _proof(stream_end, tail.join(), error)
    last += error_event(error, tail.join()) if error else events.rest()
    await send({"type": "http.response.body", "body": last, "more_body": False})
    return end, error


def _proof(
    stream_end: Callable[[bytes], End], tail: bytes, error: ServiceError | None
) -> tuple[End, ServiceError | None]:
    """Return what `tail` proves, and the error to tell: none if the engine told all."""
    try:
        end = stream_end(tail)
    except Exception as exc:
        return End(False), _unexpected(exc)
    if end.complete or end.error_sent:
        return end, None
    lost = EngineLost("the engine ended the stream before the answer was complete")
    return end, error or lost


def _unexpected(exc: Exception) -> InternalError:
    error = InternalError()
    error.__cause__ = exc
    return error


async def read_whole(answer: Answer) -> bytes:
    """The whole body of an answer that is not streamed. Raises EngineLost, EngineSlow."""
    try:
        with Deadline(answer.deadline):
            return b"".join([piece async for piece in answer.body])
    except TimeoutError as exc:
        raise EngineSlow("the generation took longer than the service allows") from exc
