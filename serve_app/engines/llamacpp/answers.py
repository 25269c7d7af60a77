"""The protocol of a dialect's writer, and answers as HTTP."""

from collections.abc import AsyncIterator, Iterable, Sequence
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol

import orjson

from serve_app.engines.base import Answer
from serve_app.engines.llamacpp.client import EventStream, Json, Refusal
from serve_app.engines.llamacpp.events import GenerationEnd, Piece
from serve_app.go_json import encode

_JSON = b"application/json; charset=utf-8"
_JSON_AFTER_STREAM = b"application/json"  # Ollama's content type of an error in place of a stream

Headers = tuple[tuple[bytes, bytes], ...]

EVENT_STREAM: Headers = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))


class RequestTimer:
    """Measures one request in nanoseconds, from its arrival and from the load of its model."""

    def __init__(self) -> None:
        self._started = perf_counter_ns()
        self._loaded = self._started

    def loaded(self) -> None:
        self._loaded = perf_counter_ns()

    def durations(self) -> Json:
        return {
            "total_duration": perf_counter_ns() - self._started,
            "load_duration": max(1, self._loaded - self._started),
        }

    def metrics(self, end: GenerationEnd) -> Json:
        """Return Ollama's six numbers, without zeros, as Go does."""
        timings = end.timings
        numbers = {
            **self.durations(),
            "prompt_eval_count": timings.get("cache_n", 0) + timings.get("prompt_n", 0),
            "prompt_eval_duration": int(timings.get("prompt_ms", 0) * 1e6),
            "eval_count": timings.get("predicted_n", 0),
            "eval_duration": int(timings.get("predicted_ms", 0) * 1e6),
        }
        return {name: number for name, number in numbers.items() if number}


class Done(NamedTuple):
    """The end of an answer. `metrics` and `context` are fields of Ollama's last line."""

    end: GenerationEnd
    metrics: Json
    context: Sequence[int] = ()


class Writer(Protocol):
    """Writes one answer, either as a stream (begin, parts, end) or complete.

    `headers`: those of the stream. `progress`: see `events.Reader`.
    """

    headers: Headers

    def begin(self, progress: Json) -> bytes: ...

    def parts(self, pieces: Iterable[Piece]) -> bytes: ...

    def end(self, done: Done) -> bytes: ...

    def complete(self, piece: Piece, done: Done) -> Json: ...


def server_sent(event: Json) -> bytes:
    """Return a server-sent event, named after its `type`."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def json_answer(value: Any, status: int = 200) -> Answer:
    return _answer(status, _JSON, _once(encode(value)))


def stream_answer(
    headers: Headers, first: bytes, rest: AsyncIterator[bytes], events: EventStream
) -> Answer:
    return Answer(200, headers, _after(first, rest), events.close)


def refusal_answer(refusal: Refusal, stream: bool) -> Answer:
    kind = _JSON_AFTER_STREAM if stream and refusal.by_engine else _JSON
    return _answer(refusal.status, kind, _once(encode({"error": str(refusal)})))


def _answer(status: int, kind: bytes, body: AsyncIterator[bytes]) -> Answer:
    return Answer(status, ((b"content-type", kind),), body)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def non_empty(**fields: Any) -> Json:
    """Return the fields whose values are not empty."""
    return {name: value for name, value in fields.items() if value}
