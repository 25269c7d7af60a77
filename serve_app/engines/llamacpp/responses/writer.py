"""Writes answers of the Responses API, as events or complete."""

from collections.abc import Iterable, Iterator

from serve_app.engines.llamacpp.answers import EVENT_STREAM, Done, server_sent
from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.events import Piece
from serve_app.engines.llamacpp.responses.output import FunctionCall, Item, MessageItem, Reasoning
from serve_app.engines.llamacpp.responses.resource import ResponseObject


class ResponseWriter:
    """Writes one answer. A complete answer is the object of a stream's last event."""

    headers = EVENT_STREAM

    def __init__(self, model: str, body: Json) -> None:
        self._response = ResponseObject(model, body)
        self._output: list[Item] = []
        self._sequence = 0

    def begin(self, progress: Json) -> bytes:
        kinds = ("response.created", "response.in_progress")
        response = self._response.in_progress()
        return self._write({"type": kind, "response": response} for kind in kinds)

    def parts(self, pieces: Iterable[Piece]) -> bytes:
        return self._write(event for piece in pieces for event in self._take(piece))

    def end(self, done: Done) -> bytes:
        return self._write(self._finish(done))

    def complete(self, piece: Piece, done: Done) -> Json:
        *_, last = [*self._take(piece), *self._finish(done)]
        response: Json = last["response"]
        return response

    def _write(self, events: Iterable[Json]) -> bytes:
        return b"".join(map(self._numbered, events))

    def _numbered(self, event: Json) -> bytes:
        event["sequence_number"] = self._sequence
        self._sequence += 1
        return server_sent(event)

    def _take(self, piece: Piece) -> Iterator[Json]:
        if piece.thinking:
            yield from self._continue(Reasoning)
            yield from self._output[-1].add(piece)
        if piece.text or piece.logprobs:
            yield from self._continue(MessageItem)
            yield from self._output[-1].add(piece)
        for call in piece.calls:
            yield from self._start(FunctionCall(len(self._output), call))

    def _continue(self, kind: type[Reasoning] | type[MessageItem]) -> Iterator[Json]:
        """Begin an item of this kind unless the last item has it."""
        if not self._output or type(self._output[-1]) is not kind:
            yield from self._start(kind(len(self._output)))

    def _start(self, item: Item) -> Iterator[Json]:
        yield from self._stop("completed")
        self._output.append(item)
        yield from item.start()

    def _stop(self, status: str) -> Iterator[Json]:
        if self._output:
            yield from self._output[-1].stop(status)

    def _finish(self, done: Done) -> Iterator[Json]:
        status = "incomplete" if done.end.reason == "length" else "completed"
        if not self._output:  # an answer without a token is an empty message
            yield from self._start(MessageItem(0))
        yield from self._stop(status)
        output = [item.value for item in self._output]
        response = self._response.ended(status, output, done)
        yield {"type": f"response.{status}", "response": response}
