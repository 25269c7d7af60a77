"""Answers of Ollama's native routes, written as lines of JSON."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from serve_app.engines.llamacpp.answers import Done, Headers, non_empty
from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.events import Piece
from serve_app.go_json import encode, now


class Voice(Protocol):
    """Builds the JSON objects of one native route."""

    def part(self, piece: Piece) -> Json: ...

    def last(self, piece: Piece, reason: str, metrics: Json, context: Sequence[int]) -> Json: ...


class ChatVoice:
    """Builds the objects of /api/chat."""

    def __init__(self, model: str) -> None:
        self._model = model

    def part(self, piece: Piece) -> Json:
        return self._head(piece) | {"done": False} | non_empty(logprobs=piece.logprobs)

    def last(self, piece: Piece, reason: str, metrics: Json, context: Sequence[int]) -> Json:
        done = {"done": True, "done_reason": reason}
        return self._head(piece) | done | non_empty(logprobs=piece.logprobs) | metrics

    def _head(self, piece: Piece) -> Json:
        message = {"role": "assistant", "content": piece.text}
        message |= non_empty(thinking=piece.thinking, tool_calls=piece.calls)
        return {"model": self._model, "created_at": now(), "message": message}


class GenerateVoice:
    """Builds the objects of /api/generate."""

    def __init__(self, model: str) -> None:
        self._model = model

    def part(self, piece: Piece) -> Json:
        return self._head(piece) | {"done": False} | non_empty(logprobs=piece.logprobs)

    def last(self, piece: Piece, reason: str, metrics: Json, context: Sequence[int]) -> Json:
        done = {"done": True, "done_reason": reason} | non_empty(context=context)
        return self._head(piece) | done | metrics | non_empty(logprobs=piece.logprobs)

    def _head(self, piece: Piece) -> Json:
        head = {"model": self._model, "created_at": now(), "response": piece.text}
        return head | non_empty(thinking=piece.thinking)


class LineWriter:
    """Writes the objects of a voice as NDJSON: a line for every piece, then the last line."""

    headers: Headers = ((b"content-type", b"application/x-ndjson"),)

    def __init__(self, voice: Voice) -> None:
        self._voice = voice

    def begin(self, progress: Json) -> bytes:
        return b""

    def parts(self, pieces: Iterable[Piece]) -> bytes:
        return b"".join(encode(self._voice.part(piece)) + b"\n" for piece in pieces)

    def end(self, done: Done) -> bytes:
        return encode(self.complete(Piece(), done)) + b"\n"

    def complete(self, piece: Piece, done: Done) -> Json:
        return self._voice.last(piece, done.end.reason, done.metrics, done.context)
