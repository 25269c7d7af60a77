"""Builds a conversation from the messages of a request and their blocks."""

from typing import Any

import orjson

from serve_app.engines.llamacpp import checked
from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.prompts.conversation import ConversationBuilder

_ROLES = ("user", "assistant", "system")
_TEXT_ONLY = "the model reads text only"


def conversation(body: Json) -> list[Json]:
    """Return the conversation of `system` and `messages`. Raises Refusal 400."""
    builder = ConversationBuilder()
    if (system := body.get("system")) is not None:
        builder.add_text("system", _text(system, "system"))
    for number, value in enumerate(checked.entries(body.get("messages"), "messages")):
        path = f"messages[{number}]"
        message = checked.fields(value, path)
        role = checked.one_of(message.get("role"), f"{path}.role", _ROLES)
        add = _add_assistant if role == "assistant" else _add_other
        add(builder, role, _blocks(message.get("content"), f"{path}.content"))
    return builder.messages


def _blocks(content: Any, path: str) -> list[tuple[Json, str]]:
    """Return the blocks of a message with their paths; a string is one block of text."""
    if isinstance(content, str):
        return [({"type": "text", "text": content}, path)]
    names = [f"{path}[{number}]" for number in range(len(checked.entries(content, path)))]
    return [(checked.fields(block, name), name) for block, name in zip(content, names, strict=True)]


def _add_assistant(builder: ConversationBuilder, role: str, blocks: list[tuple[Json, str]]) -> None:
    """Add a message of the assistant: its texts as one text, its thoughts and its calls."""
    texts: list[str] = []
    calls: list[tuple[str, str, str]] = []
    for block, path in blocks:
        kind = block.get("type")
        if kind == "text":
            texts.append(checked.text(block.get("text"), f"{path}.text"))
        elif kind == "thinking":
            builder.add_thoughts(checked.text(block.get("thinking"), f"{path}.thinking"))
        elif kind == "tool_use":
            calls.append(_call(block, path))
        elif kind != "redacted_thinking":  # encrypted by Anthropic
            raise checked.unsupported(path, kind, _TEXT_ONLY)
    builder.add_text(role, "".join(texts))
    for call in calls:
        builder.add_call(*call)


def _call(block: Json, path: str) -> tuple[str, str, str]:
    value = checked.fields(block.get("input"), f"{path}.input")
    call_id = checked.text(block.get("id"), f"{path}.id")
    name = checked.text(block.get("name"), f"{path}.name")
    return call_id, name, orjson.dumps(value).decode()


def _add_other(builder: ConversationBuilder, role: str, blocks: list[tuple[Json, str]]) -> None:
    """Add another message; results of tools become separate messages before its text."""
    texts: list[str] = []
    for block, path in blocks:
        if block.get("type") == "tool_result":
            _add_result(builder, block, path)
        else:
            texts.append(_block_text(block, path))
    if texts:
        builder.add_text(role, "\n".join(texts))


def _add_result(builder: ConversationBuilder, block: Json, path: str) -> None:
    call_id = checked.text(block.get("tool_use_id"), f"{path}.tool_use_id")
    content = block.get("content")
    result = "" if content is None else _text(content, f"{path}.content")
    builder.add_result(call_id, f"Error: {result}" if block.get("is_error") else result)


def _text(content: Any, path: str) -> str:
    return "\n".join(_block_text(*named) for named in _blocks(content, path))


def _block_text(block: Json, path: str) -> str:
    if block.get("type") != "text":
        raise checked.unsupported(path, block.get("type"), _TEXT_ONLY)
    return checked.text(block.get("text"), f"{path}.text")
