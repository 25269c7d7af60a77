"""Writes answers of the Messages API, as events or complete."""

import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from serve_app.engines.llamacpp.answers import EVENT_STREAM, Done, server_sent
from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.events import GenerationEnd, Piece


class MessageWriter:
    """Writes one answer. A complete answer has the blocks that a stream builds."""

    headers = EVENT_STREAM

    def __init__(self, model: str, body: Json) -> None:
        self._model = model
        self._id = f"msg_{secrets.token_hex(12)}"
        self._omits_thoughts = (body.get("thinking") or {}).get("display") == "omitted"
        self._blocks: list[Json] = []

    def begin(self, progress: Json) -> bytes:
        cached = progress.get("cache", 0)
        usage = _usage(cached, progress.get("total", cached) - cached, 0)
        return server_sent({"type": "message_start", "message": self._message({}, usage)})

    def parts(self, pieces: Iterable[Piece]) -> bytes:
        return _written(event for piece in pieces for event in self._take(piece))

    def end(self, done: Done) -> bytes:
        usage = _counted(done.end)
        delta = {"type": "message_delta", "delta": self._reason(done.end), "usage": usage}
        return _written([*self._stop(), delta, {"type": "message_stop"}])

    def complete(self, piece: Piece, done: Done) -> Json:
        for _ in self._take(piece):
            pass
        message = self._message(self._reason(done.end), _counted(done.end))
        return message | {"content": self._blocks}

    def _message(self, reason: Json, usage: Json) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
            **reason,
        }

    def _reason(self, end: GenerationEnd) -> Json:
        if end.reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if end.stopped_by:
            return {"stop_reason": "stop_sequence", "stop_sequence": end.stopped_by}
        called = any(block["type"] == "tool_use" for block in self._blocks)
        return {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}

    def _take(self, piece: Piece) -> Iterator[Json]:
        if piece.thinking:
            yield from self._continue({"type": "thinking", "thinking": "", "signature": ""})
            if not self._omits_thoughts:
                yield self._add("thinking_delta", "thinking", piece.thinking)
        if piece.text:
            yield from self._continue({"type": "text", "text": ""})
            yield self._add("text_delta", "text", piece.text)
        for call in piece.calls:
            yield from self._use(call["id"], **call["function"])

    def _continue(self, block: Json) -> Iterator[Json]:
        """Begin a block of this type unless the last block has it."""
        if not self._blocks or self._blocks[-1]["type"] != block["type"]:
            yield from self._start(block)

    def _start(self, block: Json) -> Iterator[Json]:
        yield from self._stop()
        self._blocks.append(block)
        yield self._event("content_block_start", content_block=dict(block))

    def _stop(self) -> Iterator[Json]:
        if self._blocks:
            yield self._event("content_block_stop")

    def _add(self, kind: str, name: str, text: str) -> Json:
        self._blocks[-1][name] += text
        return self._delta(kind, name, text)

    def _use(self, call_id: str, name: str, arguments: Json, index: int) -> Iterator[Json]:
        yield from self._start({"type": "tool_use", "id": call_id, "name": name, "input": {}})
        self._blocks[-1]["input"] = arguments
        yield self._delta("input_json_delta", "partial_json", orjson.dumps(arguments).decode())

    def _delta(self, kind: str, name: str, text: str) -> Json:
        return self._event("content_block_delta", delta={"type": kind, name: text})

    def _event(self, kind: str, **fields: Any) -> Json:
        return {"type": kind, "index": len(self._blocks) - 1, **fields}


def _written(events: Iterable[Json]) -> bytes:
    return b"".join(map(server_sent, events))


def _counted(end: GenerationEnd) -> Json:
    timings = end.timings
    counts = (timings.get(name, 0) for name in ("cache_n", "prompt_n", "predicted_n"))
    return _usage(*counts)


def _usage(cached: int, evaluated: int, generated: int) -> Json:
    """Return the usage, in which Anthropic's input tokens exclude those from the cache."""
    return {
        "input_tokens": evaluated,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": generated,
    }
