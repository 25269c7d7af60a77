"""The text of a prompt in the order in which an engine's template writes it.

A body may have 32 MiB in 200,000 values, and reading them would stop a gateway's event loop for a
second. So the reading ends at a bound; the text up to there is the same, whatever follows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

SYSTEM_ROLES = frozenset(("system", "developer"))
# JSON values that are read one by one: messages, their parts, and all within tools and images.
# About 10 ms; a hundred tools have some thousands.
MAX_VALUES = 10_000
# Characters to read at the begin and at the end of a long value, such as an image.
_SAMPLE = 2048


class ReadingBound:
    """Counts what may still be read of one prompt. `max_bytes`: of its text."""

    __slots__ = ("characters_left", "max_bytes", "values_left")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.characters_left = max_bytes  # in messages of several parts, and in JSON
        self.values_left = MAX_VALUES

    @property
    def is_reached(self) -> bool:
        return self.values_left < 0 or self.characters_left < 0

    def values(self, values: Iterable[T]) -> Iterator[T]:
        """Yield `values` until the bound is reached."""
        for value in values:
            self.values_left -= 1
            if self.values_left < 0 or self.characters_left < 0:
                return
            yield value

    def text(self, text: str) -> str:
        """Return `text` up to the bound."""
        text = text[: self.max_bytes]
        self.characters_left -= len(text)
        return text


def prompt_pieces(payload: Mapping[str, Any], bound: ReadingBound) -> Iterator[tuple[str, bytes]]:
    """Yield role and text of each part of the prompt; the last one may be cut at the bound."""
    messages = _messages(payload)
    for name in ("system", "instructions"):
        if payload.get(name):
            yield "system", b"system\0" + _text(payload[name], bound)
    leading = 0
    for message in bound.values(messages):
        if (role := _role(message)) not in SYSTEM_ROLES:
            break
        leading += 1
        yield "system", _message(message, role, bound)
    if payload.get("tools") and not bound.is_reached:
        yield "system", _json(payload["tools"], bound)
    for message in bound.values(islice(messages, leading, None)):
        role = _role(message)
        # A later system message is a part of the conversation.
        yield "" if role in SYSTEM_ROLES else role, _message(message, role, bound)


def _messages(payload: Mapping[str, Any]) -> Sequence[Any]:
    messages = payload.get("messages") or payload.get("input") or ()
    if isinstance(messages, str):
        return ({"role": "user", "content": messages},)
    return messages if isinstance(messages, list) else ()


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role[:32] if isinstance(role, str) else ""


def _message(message: Any, role: str, bound: ReadingBound) -> bytes:
    """Return role and text, and all other input that the engine may read."""
    if not isinstance(message, dict):
        return _json(message, bound) + b"\0"
    content = message.get("content")
    if role and isinstance(content, str) and len(message) == 2:  # the usual message
        return f"{role}\0{content[: bound.max_bytes]}\0".encode("utf-8", "replace")
    rest = [message[name] for name in ("tool_calls", "images", "output") if message.get(name)]
    parts = [_text(content, bound), *[_json(value, bound) for value in bound.values(rest)]]
    return b"".join([role.encode("utf-8", "replace"), b"\0", *parts, b"\0"])


def _text(content: Any, bound: ReadingBound) -> bytes:
    """Return a message's text, other parts as JSON."""
    if isinstance(content, str):
        return bound.text(content).encode("utf-8", "replace")
    if not isinstance(content, list):
        return b"" if content is None else _json(content, bound)
    text = bytearray()
    for part in bound.values(content):
        inner = part.get("text") if isinstance(part, dict) else part
        if isinstance(inner, str):
            text += bound.text(inner).encode("utf-8", "replace")
        else:
            text += _json(part, bound)
    return bytes(text)


def _json(value: Any, bound: ReadingBound) -> bytes:
    return orjson.dumps(_sampled(value, bound))


def _sampled(value: Any, bound: ReadingBound) -> Any:
    """Return the value up to the bound, of each long text, such as an image, a sample."""
    if isinstance(value, str):
        text = value if len(value) <= 2 * _SAMPLE else _sample(value)
        bound.characters_left -= len(text)
        return text
    if isinstance(value, dict):
        return _sampled_object(value, bound)
    if isinstance(value, list):
        return [_sampled(item, bound) for item in bound.values(value)]
    return value


def _sampled_object(value: Mapping[str, Any], bound: ReadingBound) -> dict[str, Any]:
    # Without `bound.values`: schemas of tools have objects above all, and this takes half the time.
    sampled = {}
    for name, item in value.items():
        bound.values_left -= 1
        if bound.values_left < 0 or bound.characters_left < 0:
            break
        bound.characters_left -= len(name)
        sampled[name if len(name) <= 2 * _SAMPLE else _sample(name)] = _sampled(item, bound)
    return sampled


def _sample(text: str) -> str:
    """Return the length, begin and end of a long text."""
    return f"{len(text)} {text[:_SAMPLE]}{text[-_SAMPLE:]}"
