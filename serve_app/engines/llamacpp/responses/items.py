"""Builds a conversation from the items of a request's `input`."""

from collections.abc import Callable
from typing import Any

from serve_app.engines.llamacpp import checked
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.prompts.conversation import ConversationBuilder, arguments

_ROLES = ("user", "assistant", "system", "developer")
# The field with the text, by type of part.
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_TEXT_ONLY = "the model reads text only"


def conversation(body: Json) -> list[Json]:
    """Return the conversation of `instructions` and `input`. Raises Refusal 400."""
    builder = ConversationBuilder()
    if (instructions := body.get("instructions")) is not None:
        builder.add_text("system", checked.text(instructions, "instructions"))
    value = body.get("input")
    if not value:
        raise Refusal(400, "input is required: a string or a list of items")
    if isinstance(value, str):
        builder.add_text("user", value)
        return builder.messages
    for number, item in enumerate(checked.entries(value, "input")):
        path = f"input[{number}]"
        _add(builder, checked.fields(item, path), path)
    if not builder.messages:
        raise Refusal(400, "input has no message")
    return builder.messages


def _add(builder: ConversationBuilder, item: Json, path: str) -> None:
    kind = item.get("type") or "message"
    add = _ITEMS.get(kind) if isinstance(kind, str) else None
    if kind == "item_reference":
        raise checked.unsupported(
            path, kind, "no items are kept: send the item itself, as clients do with store: false"
        )
    if add is None:
        raise checked.unsupported(path, kind, f"use one of {', '.join(_ITEMS)}")
    add(builder, item, path)


def _message(builder: ConversationBuilder, item: Json, path: str) -> None:
    role = checked.one_of(item.get("role"), f"{path}.role", _ROLES)
    # The parts of an answer are one text; the parts of a question may be anything.
    between = "" if role == "assistant" else "\n"
    content = _text(item.get("content"), f"{path}.content", between)
    builder.add_text("system" if role == "developer" else role, content)


def _reasoning(builder: ConversationBuilder, item: Json, path: str) -> None:
    """Add thoughts: their text if there is one, else the summary; never encrypted content."""
    for name in ("content", "summary"):
        parts = checked.entries(item.get(name) or [], f"{path}.{name}")
        texts = [checked.fields(part, f"{path}.{name}").get("text") for part in parts]
        if thoughts := "\n".join(text for text in texts if isinstance(text, str)):
            builder.add_thoughts(thoughts)
            break


def _call(builder: ConversationBuilder, item: Json, path: str) -> None:
    call_id = checked.text(item.get("call_id"), f"{path}.call_id")
    name = checked.text(item.get("name"), f"{path}.name")
    builder.add_call(call_id, name, arguments(item.get("arguments"), f"{path}.arguments"))


def _result(builder: ConversationBuilder, item: Json, path: str) -> None:
    call_id = checked.text(item.get("call_id"), f"{path}.call_id")
    builder.add_result(call_id, _text(item.get("output"), f"{path}.output", "\n"))


_ITEMS: dict[str, Callable[[ConversationBuilder, Json, str], None]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _result,
    "reasoning": _reasoning,
}


def _text(content: Any, path: str, between: str) -> str:
    if isinstance(content, str):
        return content
    parts = checked.entries(content, path)
    return between.join(_part(part, f"{path}[{number}]") for number, part in enumerate(parts))


def _part(value: Any, path: str) -> str:
    part = checked.fields(value, path)
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _TEXTS:
        raise checked.unsupported(path, kind, _TEXT_ONLY)
    return checked.text(part.get(_TEXTS[kind]), f"{path}.{_TEXTS[kind]}")
