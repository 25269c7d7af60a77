"""Reads llama.cpp's events as pieces of an answer and its end."""

import random
import string
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from serve_app.engines.llamacpp.client import EventStream, Json
from serve_app.errors import EngineLost


@dataclass(slots=True)
class Piece:
    """A part of an answer: that of one event, or the complete answer."""

    text: str = ""
    thinking: str = ""
    calls: list[Json] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)

    def add(self, other: "Piece") -> None:
        self.text += other.text
        self.thinking += other.thinking
        self.calls += other.calls
        self.logprobs += other.logprobs


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The end of an answer: its reason ("stop" or "length") and llama.cpp's timings.

    `stopped_by`: the stop sequence that ended it, if the request asks llama.cpp to name it.
    `thinking_tokens`: the number of events with thoughts, of about one token each.
    """

    reason: str
    timings: Json
    stopped_by: str = ""
    thinking_tokens: int = 0


class Reader(Protocol):
    """Reads the events of one answer. `end`: None before the last event. Raises EngineLost.

    `progress`: llama.cpp's count of the prompt's tokens, {} unless the request asks for it.
    """

    end: GenerationEnd | None
    progress: Json

    def read(self, event: Json) -> Piece | None: ...


class ChatReader:
    """Reads /v1/chat/completions. Tool calls come in fragments and are returned at the end."""

    def __init__(self, top_logprobs: int) -> None:
        self.end: GenerationEnd | None = None
        self.progress: Json = {}
        self._top = top_logprobs
        self._thinking_tokens = 0
        self._calls: dict[int, Json] = {}

    def read(self, event: Json) -> Piece | None:
        self.progress = event.get("prompt_progress") or self.progress
        if not event.get("choices"):
            return None
        choice = event["choices"][0]
        delta = choice.get("delta") or {}
        for fragment in delta.get("tool_calls") or ():
            self._collect(fragment)
        piece = Piece(
            delta.get("content") or "",
            delta.get("reasoning_content") or "",
            logprobs=_logprobs((choice.get("logprobs") or {}).get("content"), self._top),
        )
        self._thinking_tokens += bool(piece.thinking)
        if reason := choice.get("finish_reason"):
            self.end = self._read_end(reason, event)
            piece.calls = self._complete_calls()
        return piece if piece.text or piece.thinking or piece.calls or piece.logprobs else None

    def _read_end(self, reason: str, event: Json) -> GenerationEnd:
        return GenerationEnd(
            "length" if reason == "length" else "stop",
            event.get("timings") or {},
            (event.get("__verbose") or {}).get("stopping_word") or "",
            self._thinking_tokens,
        )

    def _collect(self, fragment: Json) -> None:
        call = self._calls.setdefault(fragment.get("index", 0), {"name": "", "arguments": ""})
        function = fragment.get("function") or {}
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def _complete_calls(self) -> list[Json]:
        calls = [self._call(index, call) for index, call in sorted(self._calls.items())]
        return [call for call in calls if call]

    def _call(self, index: int, call: Json) -> Json | None:
        try:
            arguments = orjson.loads(call["arguments"] or "{}")
        except orjson.JSONDecodeError as exc:
            if self.end and self.end.reason == "length":  # the caller's limit cut it
                return None
            raise EngineLost("the engine sent a tool call whose arguments are not JSON") from exc
        function = {"index": index, "name": call["name"], "arguments": arguments}
        return {"id": _call_id(), "function": function}


class TextReader:
    """Reads /completion."""

    def __init__(self, top_logprobs: int) -> None:
        self.end: GenerationEnd | None = None
        self.progress: Json = {}
        self._top = top_logprobs

    def read(self, event: Json) -> Piece | None:
        text = event.get("content") or ""
        if event.get("stop"):
            reason = "length" if event.get("stop_type") == "limit" else "stop"
            self.end = GenerationEnd(reason, event.get("timings") or {})
            return Piece(text) if text else None
        entries = _logprobs(event.get("completion_probabilities"), self._top)
        return Piece(text, logprobs=entries) if text or entries else None


async def pieces(events: EventStream, reader: Reader) -> AsyncIterator[list[Piece]]:
    """Yield the pieces of every read. Raises EngineLost when the last event is missing."""
    async for batch in events.batches():
        if group := [piece for event in batch if (piece := reader.read(event))]:
            yield group
    if reader.end is None:
        raise EngineLost("the engine ended the answer before it was complete")


def _call_id() -> str:
    return "call_" + "".join(random.choices(string.ascii_lowercase + string.digits, k=8))


def _logprobs(entries: list[Json] | None, top: int) -> list[Json]:
    """Return llama.cpp's entries in Ollama's shape, with `top` alternatives if requested."""
    shown = [_logprob(entry) for entry in entries or ()]
    if top:
        for entry, source in zip(shown, entries or (), strict=True):
            entry["top_logprobs"] = [_logprob(other) for other in source["top_logprobs"]]
    return shown


def _logprob(entry: Json) -> Json:
    shown = {"token": entry["token"], "logprob": entry["logprob"]}
    return shown | ({"bytes": entry["bytes"]} if entry.get("bytes") else {})
