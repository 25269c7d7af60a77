"""The items of an answer's `output`, and the events that build them."""

from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.events import Piece
from serve_app.engines.llamacpp.responses.resource import new_id


class Item(Protocol):
    """One item. `index`: its place in `output`. `value`: its JSON, final after `stop`."""

    index: int
    value: Json

    def start(self) -> Iterator[Json]: ...

    def add(self, piece: Piece) -> Iterator[Json]: ...

    def stop(self, status: str) -> Iterator[Json]: ...


class MessageItem:
    """A message with one part of text."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._texts: list[str] = []
        self._logprobs: list[Json] = []
        self.value: Json = {
            "id": new_id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }

    def start(self) -> Iterator[Json]:
        yield _added(self)
        yield self._event("content_part.added", part=_part("", []))

    def add(self, piece: Piece) -> Iterator[Json]:
        logprobs = [_logprob(entry) for entry in piece.logprobs]
        self._texts.append(piece.text)
        self._logprobs += logprobs
        yield self._event("output_text.delta", delta=piece.text, logprobs=logprobs)

    def stop(self, status: str) -> Iterator[Json]:
        text = "".join(self._texts)
        part = _part(text, self._logprobs)
        self.value |= {"status": status, "content": [part]}
        yield self._event("output_text.done", text=text, logprobs=self._logprobs)
        yield self._event("content_part.done", part=part)
        yield _done(self)

    def _event(self, kind: str, **fields: Any) -> Json:
        return _event(self, kind, content_index=0, **fields)


class Reasoning:
    """Thoughts, which are also their summary and their encrypted content, as in Ollama."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._texts: list[str] = []
        self.value: Json = {"id": new_id("rs"), "type": "reasoning", "summary": []}

    def start(self) -> Iterator[Json]:
        yield _added(self)
        yield self._event("part.added", part=_summary(""))

    def add(self, piece: Piece) -> Iterator[Json]:
        self._texts.append(piece.thinking)
        yield self._event("text.delta", delta=piece.thinking)

    def stop(self, status: str) -> Iterator[Json]:
        text = "".join(self._texts)
        self.value |= {"summary": [_summary(text)], "encrypted_content": text, "status": status}
        yield self._event("text.done", text=text)
        yield self._event("part.done", part=_summary(text))
        yield _done(self)

    def _event(self, kind: str, **fields: Any) -> Json:
        return _event(self, f"reasoning_summary_{kind}", summary_index=0, **fields)


class FunctionCall:
    """A call, which is complete when it begins."""

    def __init__(self, index: int, call: Json) -> None:
        self.index = index
        function = call["function"]
        self._arguments = orjson.dumps(function["arguments"]).decode()
        self.value: Json = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": "",
        }

    def start(self) -> Iterator[Json]:
        yield _added(self)
        yield _event(self, "function_call_arguments.delta", delta=self._arguments)

    def add(self, piece: Piece) -> Iterator[Json]:
        return iter(())

    def stop(self, status: str) -> Iterator[Json]:
        """Complete the call, even where the answer was cut after it."""
        self.value |= {"status": "completed", "arguments": self._arguments}
        name, arguments = self.value["name"], self._arguments
        yield _event(self, "function_call_arguments.done", name=name, arguments=arguments)
        yield _done(self)


def _added(item: Item) -> Json:
    return _item_event(item, "added")


def _done(item: Item) -> Json:
    return _item_event(item, "done")


def _item_event(item: Item, name: str) -> Json:
    kind = f"response.output_item.{name}"
    return {"type": kind, "output_index": item.index, "item": dict(item.value)}


def _event(item: Item, kind: str, **fields: Any) -> Json:
    place = {"item_id": item.value["id"], "output_index": item.index}
    return {"type": f"response.{kind}", **place, **fields}


def _part(text: str, logprobs: list[Json]) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _summary(text: str) -> Json:
    return {"type": "summary_text", "text": text}


def _logprob(entry: Json) -> Json:
    """Return an entry with both of OpenAI's lists, which may be empty."""
    alternatives = [{"bytes": [], **other} for other in entry.get("top_logprobs") or ()]
    return {"bytes": [], **entry, "top_logprobs": alternatives}
