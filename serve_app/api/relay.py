"""Relays an engine's bytes undecoded, and proves that an answer is complete."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.api.counts import USAGE, without_counts
from serve_app.api.http import Send
from serve_app.deadline import Deadline
from serve_app.engines.base import Answer, Usage
from serve_app.errors import EngineLost, EngineSlow, InternalError, ServiceError

# Enough for any final event; that of a Responses stream, which repeats the text, may be longer.
TAIL_BYTES = 1 << 20


# Not frozen, because every request makes one, and a frozen value takes three times as long.
@dataclass(slots=True)
class AnswerEnd:
    """The end of an answer, as its last bytes prove it.

    `complete`: they hold the final marker. `error_sent`: the engine reported an error itself.
    """

    complete: bool
    error_sent: bool = False
    usage: Usage = field(default_factory=Usage)


class Tail:
    """Holds the last bytes of a stream by reference, so that nothing is copied until the end."""

    __slots__ = ("_chunks", "_dropped", "_size")

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0  # events

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= TAIL_BYTES:
            chunk = self._chunks.popleft()
            self._size -= len(chunk)
            self._dropped += _events(chunk)

    def join(self) -> bytes:
        return b"".join(self._chunks)

    def events(self) -> int:
        """Count all events of the stream so far, those dropped included."""
        return self._dropped + sum(map(_events, self._chunks))


def _events(chunk: bytes) -> int:
    """Count the complete events in `chunk`: a line of JSON, or all up to an empty line."""
    is_json = chunk.startswith(b"{")
    return chunk.count(b"\n" if is_json else b"\n\n") or chunk.count(b"\n\r\n")


class EventSplitter:
    """Cuts a stream at the ends of its events, so that no error event lands inside another event.

    An event of `text/event-stream` ends with an empty line, an event of any other type with a line.
    """

    __slots__ = ("_ends", "held")

    def __init__(self, content_type: bytes) -> None:
        self.held = b""
        sse = content_type.startswith(b"text/event-stream")
        self._ends = (b"\n\n", b"\n\r\n") if sse else (b"\n",)

    def complete(self, chunk: bytes) -> bytes:
        """Return the complete events so far; hold the rest until its event ends."""
        if not self.held and chunk.endswith(self._ends):
            return chunk
        data = self.held + chunk
        cut = max(_behind_last(end, data) for end in self._ends)
        self.held = data[cut:]
        return data[:cut]

    def rest(self) -> bytes:
        """Return the held bytes as a last event, with its missing line ends."""
        missing = b"" if not self.held else self._ends[0][self.held.endswith(b"\n") :]
        return self.held + missing


def _behind_last(end: bytes, data: bytes) -> int:
    index = data.rfind(end)
    return 0 if index < 0 else index + len(end)


async def relay_stream(
    answer: Answer,
    send: Send,
    stream_end: Callable[[bytes], AnswerEnd],
    error_event: Callable[[ServiceError, bytes], bytes],
    on_chunk: Callable[[], None],
    tail: Tail,
    hides_counts: bool = False,
) -> tuple[AnswerEnd, ServiceError | None]:
    """Send a streamed answer on as it comes.

    An answer that breaks off, or ends without its final marker, gets one error event, written by
    `error_event` from the error and the last bytes sent. `tail` gets the engine's events;
    `hides_counts`: leaves out the event that counts tokens.

    Returns the end of the answer and the error sent to the client, if any. An InternalError has the
    unexpected exception as its cause.
    """
    kind = dict(answer.headers).get(b"content-type", b"")
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": list(answer.headers),
        }
    )
    events = EventSplitter(kind)
    last, error = await _pass_on(answer, send, events, on_chunk, tail, hides_counts)
    if events.held:
        tail.add(events.held)
    end, error = _proof(stream_end, tail.join(), error)
    last += error_event(error, tail.join()) if error else events.rest()
    await send({"type": "http.response.body", "body": last, "more_body": False})
    return end, error


async def _pass_on(
    answer: Answer,
    send: Send,
    events: EventSplitter,
    on_chunk: Callable[[], None],
    tail: Tail,
    hides_counts: bool,
) -> tuple[bytes, ServiceError | None]:
    """Send complete events until the body ends or breaks off.

    Returns the last events, which go with the end of the answer, and the error.
    """
    last = b""
    try:
        with Deadline(answer.deadline):
            async for chunk in answer.body:
                on_chunk()
                data = events.complete(chunk)
                if data:
                    tail.add(data)
                    if hides_counts and USAGE in data:
                        data = without_counts(data)
                if answer.is_last():
                    last = data  # one write for both
                elif data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
    except TimeoutError:
        answer.close()  # the client may never read the end
        return last, EngineSlow("the generation took longer than the service allows")
    except ServiceError as exc:
        return last, exc
    except Exception as exc:
        return last, _unexpected(exc)
    return last, None


def _proof(
    stream_end: Callable[[bytes], AnswerEnd], tail: bytes, error: ServiceError | None
) -> tuple[AnswerEnd, ServiceError | None]:
    """Return the end that `tail` proves, and the error that the client must still get, if any."""
    try:
        end = stream_end(tail)
    except Exception as exc:
        return AnswerEnd(False), _unexpected(exc)
    if end.complete or end.error_sent:
        return end, None
    lost = EngineLost("the engine ended the stream before the answer was complete")
    return end, error or lost


def _unexpected(exc: Exception) -> InternalError:
    error = InternalError()
    error.__cause__ = exc
    return error


async def read_answer(answer: Answer) -> bytes:
    """Return the body of an answer that is not streamed. Raises EngineLost, EngineSlow."""
    try:
        with Deadline(answer.deadline):
            return b"".join([chunk async for chunk in answer.body])
    except TimeoutError as exc:
        raise EngineSlow("the generation took longer than the service allows") from exc
