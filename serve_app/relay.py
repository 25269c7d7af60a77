"""Engine bytes to client bytes, undecoded; and the proof that an answer is whole."""

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.deadline import Deadline
from serve_app.engines.base import Answer
from serve_app.errors import EngineLost, EngineSlow, ServiceError

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

    whole: bool
    told: bool = False
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


class Lines:
    """Cuts a stream at line ends, so that our error event never lands inside the engine's line."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = b""

    def whole(self, piece: bytes) -> bytes:
        """The whole lines so far; the rest is held until its line ends."""
        if not self.held and piece.endswith(b"\n"):
            return piece
        piece = self.held + piece
        cut = piece.rfind(b"\n") + 1
        self.held = piece[cut:]
        return piece[:cut]


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
    client was told, if any.
    """
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": list(answer.headers),
        }
    )
    tail, lines, last = Tail(), Lines(), b""
    error: ServiceError | None = None
    try:
        with Deadline(answer.deadline):
            async for piece in answer.body:
                on_piece()
                piece = lines.whole(piece)
                if answer.over():
                    last = piece  # goes with the end: one write less
                elif piece:
                    tail.add(piece)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError:
        error = EngineSlow("the generation took longer than the service allows")
        answer.close()  # the client may never take its end
    except ServiceError as exc:
        error = exc
    held = b"" if error else lines.held
    tail.add(last + held)
    end = stream_end(tail.join())
    if not end.whole and not end.told:
        error = error or EngineLost("the engine ended the stream before the answer was complete")
        held = error_event(error, tail.join())
    last += held
    await send({"type": "http.response.body", "body": last, "more_body": False})
    return end, error


async def read_whole(answer: Answer) -> bytes:
    """The whole body of an answer that is not streamed. Raises EngineLost, EngineSlow."""
    try:
        with Deadline(answer.deadline):
            return b"".join([piece async for piece in answer.body])
    except TimeoutError as exc:
        raise EngineSlow("the generation took longer than the service allows") from exc
