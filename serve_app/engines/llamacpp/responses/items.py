"""The items of a request's `input`, put together as the conversation that they are."""

from collections.abc import Callable
from typing import Any

from serve_app.engines.llamacpp import checked
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.prompts.conversation import Conversation, arguments

_ROLES = ("user", "assistant", "system", "developer")
# The field of each part that is text.
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_TEXT_ONLY = "the model reads text only"


def conversation(body: Json) -> list[Json]:
    """The messages of `instructions` and `input`. Raises Refusal 400."""
    talk = Conversation()
    if (instructions := body.get("instructions")) is not None:
        talk.say("system", checked.text(instructions, "instructions"))
    given = body.get("input")
    if not given:
        raise Refusal(400, "input is required: a string or a list of items")
    if isinstance(given, str):
        talk.say("user", given)
        return talk.messages
    for number, item in enumerate(checked.entries(given, "input")):
        where = f"input[{number}]"
        _add(talk, checked.fields(item, where), where)
    if not talk.messages:
        raise Refusal(400, "input has no message")
    return talk.messages


def _add(talk: Conversation, item: Json, where: str) -> None:
    kind = item.get("type") or "message"
    add = _ITEMS.get(kind) if isinstance(kind, str) else None
    if kind == "item_reference":
        raise checked.unsupported(
            where, kind, "no items are kept: send the item itself, as clients do with store: false"
        )
    if add is None:
        raise checked.unsupported(where, kind, f"these items are: {', '.join(_ITEMS)}")
    add(talk, item, where)


def _message(talk: Conversation, item: Json, where: str) -> None:
    role = checked.one_of(item.get("role"), f"{where}.role", _ROLES)
    # The parts of an answer are one text; those of a question may be anything.
    between = "" if role == "assistant" else "\n"
    content = _text(item.get("content"), f"{where}.content", between)
    talk.say("system" if role == "developer" else role, content)


def _reasoning(talk: Conversation, item: Json, where: str) -> None:
    """Its own text if there is one, else the summary; never what is encrypted elsewhere."""
    for name in ("content", "summary"):
        parts = checked.entries(item.get(name) or [], f"{where}.{name}")
        texts = [checked.fields(part, f"{where}.{name}").get("text") for part in parts]
        if thoughts := "\n".join(text for text in texts if isinstance(text, str)):
            return talk.think(thoughts)
    return None


def _call(talk: Conversation, item: Json, where: str) -> None:
    call_id = checked.text(item.get("call_id"), f"{where}.call_id")
    name = checked.text(item.get("name"), f"{where}.name")
    talk.call(call_id, name, arguments(item.get("arguments"), f"{where}.arguments"))


def _result(talk: Conversation, item: Json, where: str) -> None:
    call_id = checked.text(item.get("call_id"), f"{where}.call_id")
    talk.result(call_id, _text(item.get("output"), f"{where}.output", "\n"))


_ITEMS: dict[str, Callable[[Conversation, Json, str], None]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _result,
    "reasoning": _reasoning,
}


def _text(content: Any, where: str, between: str) -> str:
    if isinstance(content, str):
        return content
    parts = checked.entries(content, where)
    return between.join(_part(part, f"{where}[{number}]") for number, part in enumerate(parts))


def _part(given: Any, where: str) -> str:
    part = checked.fields(given, where)
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _TEXTS:
        raise checked.unsupported(where, kind, _TEXT_ONLY)
    return checked.text(part.get(_TEXTS[kind]), f"{where}.{_TEXTS[kind]}")
