"""Prompts and answers as attributes, in the conventions' form, where `tracing.content` is on."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from serve_app.caller_text import mask_keys
from serve_app.engines.span import AttributeValue
from serve_app.tracing.finish import finish_reason
from serve_app.tracing.notes import SpanNotes

# The maximum of one text, in characters. Viewers and collectors refuse spans of megabytes.
_MAX_TEXT = 16_384
_ASKED = ("messages", "prompt", "input")
_TEXT_NAMES = ("text", "content", "input_text")


def content_attributes(notes: SpanNotes) -> dict[str, AttributeValue]:
    """Return the texts of prompt and answer; images and tool calls are left out."""
    payload = notes.payload
    messages = [_message(message) for name in _ASKED for message in _items(payload.get(name))]
    system = _text(payload.get("system") or payload.get("instructions") or "")
    answer = _text_message("assistant", answer_text(notes.answer))
    answer["finish_reason"] = finish_reason(notes.answer) or "error"
    values: dict[str, Any] = {
        "gen_ai.input.messages": messages,
        "gen_ai.system_instructions": [_part(system)] if system else None,
        "gen_ai.output.messages": [answer] if notes.answer else None,
    }
    return {name: orjson.dumps(value).decode() for name, value in values.items() if value}


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value] if value else ()


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        return _text_message("user", _text(message))
    role = message.get("role")
    return _text_message(role if isinstance(role, str) else "user", _text(message.get("content")))


def _text_message(role: str, text: str) -> dict[str, Any]:
    return {"role": mask_keys(role), "parts": [_part(text)]}


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "content": mask_keys(text[:_MAX_TEXT])}


def _text(content: Any) -> str:
    """Return the text of a message's content: a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return "".join(_text(content[name]) for name in _TEXT_NAMES if name in content)
    return "\n".join(filter(None, map(_text, content))) if isinstance(content, list) else ""


def answer_text(answer: bytes) -> str:
    """Return the text in a whole answer, or in the events of a stream, in any dialect."""
    values = [value for line in answer.split(b"\n") if (value := _json(line)) is not None]
    return "".join(text for value in values for text in _texts(value))[:_MAX_TEXT]


def _json(line: bytes) -> dict[str, Any] | None:
    text = line.removeprefix(b"data:").strip()
    if not text.startswith(b"{"):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None  # the first event may be cut
    return value if isinstance(value, dict) else None


def _texts(value: dict[str, Any]) -> Iterator[str]:
    """Yield the text that one event adds, or that a whole answer holds."""
    kind = value.get("type")
    if isinstance(kind, str) and kind.startswith("response."):
        if kind == "response.output_text.delta":
            yield _text(value.get("delta"))
        return
    for choice in _dicts(value.get("choices")):
        yield _text(choice.get("delta") or choice.get("message") or choice)
    for name in ("message", "delta", "content", "response"):
        yield _text(value.get(name))
    for item in _dicts(value.get("output")):
        yield _text(item.get("content"))


def _dicts(values: Any) -> Iterable[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else ()
