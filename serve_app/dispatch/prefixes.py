"""The common beginnings of prompts.

A conversation is cut into blocks of BLOCK_BYTES in the order in which the engine reads it: system
messages, tools, then the other messages with role and text. The hash of a block covers all blocks
before it, so that equal hashes mean equal beginnings. Two prompts made to have equal hashes mislead
the placement of these two alone, so a fast hash will do.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import orjson
from xxhash import xxh3_64_intdigest

BLOCK_BYTES = 512
_HASH_BYTES = 8
_SYSTEM = frozenset(("system", "developer"))
# Characters to hash at the begin and at the end of a long value, such as an image.
_SAMPLE = 2048


class Chain(NamedTuple):
    """The beginning of one conversation.

    `blocks`: chained hashes. `anchor`: hash of the text up to the end of the user's first message.
    `system_blocks`: blocks within system messages and tools. `text_bytes`: length of the text that
    was read; where `is_cut`, the whole text is longer.
    """

    blocks: Sequence[int]
    anchor: bytes
    system_blocks: int
    text_bytes: int
    is_cut: bool = False

    def packed(self) -> bytes:
        return struct.pack(f">{len(self.blocks)}Q", *self.blocks)


EMPTY = Chain((), b"", 0, 0)


def unpack(data: bytes) -> tuple[int, ...]:
    """Return the blocks in the output of `Chain.packed`."""
    return struct.unpack_from(f">{len(data) // _HASH_BYTES}Q", data)


def hint_anchor(group: str, hint: str) -> bytes:
    """Return the anchor of a caller's hint, which means nothing in another group."""
    text = f"{group}\0{hint}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_HASH_BYTES).digest()


def chain_of(payload: Mapping[str, Any], model: str, max_bytes: int) -> Chain:
    """Return the chain of a checked request of any dialect; read at most `max_bytes` of text."""
    pieces: list[bytes] = []
    length = system_bytes = first_user = 0
    for role, piece in _pieces(payload, max_bytes):
        pieces.append(piece)
        length += len(piece)
        if role in _SYSTEM:
            system_bytes = length
        elif not first_user and role == "user":
            first_user = length
        if length > max_bytes:
            break
    text = b"".join(pieces)[:max_bytes]
    return Chain(
        _blocks(text, model),
        _hash(text[: first_user or max_bytes], model.encode()),
        min(system_bytes, max_bytes) // BLOCK_BYTES,
        len(text),
        length > max_bytes,
    )


def _blocks(text: bytes, model: str) -> tuple[int, ...]:
    blocks, running = [], xxh3_64_intdigest(model.encode())
    for start in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
        running = xxh3_64_intdigest(text[start : start + BLOCK_BYTES], running)
        blocks.append(running)
    return tuple(blocks)


def _hash(text: bytes, before: bytes) -> bytes:
    return blake2b(before + b"\0" + text, digest_size=_HASH_BYTES).digest()


def _pieces(payload: Mapping[str, Any], max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield role and text in the order in which a template writes them."""
    messages = _messages(payload)
    for name in ("system", "instructions"):
        if payload.get(name):
            yield "system", b"system\0" + _text(payload[name], max_bytes)
    leading = 0
    while leading < len(messages) and (role := _role(messages[leading])) in _SYSTEM:
        yield "system", _message(messages[leading], role, max_bytes)
        leading += 1
    if payload.get("tools"):
        yield "system", _json(payload["tools"])
    for message in islice(messages, leading, None):
        role = _role(message)
        # A later system message is a part of the conversation.
        yield "" if role in _SYSTEM else role, _message(message, role, max_bytes)


def _messages(payload: Mapping[str, Any]) -> Sequence[Any]:
    messages = payload.get("messages") or payload.get("input") or ()
    if isinstance(messages, str):
        return ({"role": "user", "content": messages},)
    return messages if isinstance(messages, list) else ()


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role[:32] if isinstance(role, str) else ""


def _message(message: Any, role: str, max_bytes: int) -> bytes:
    """Return role and text, and all other input that the engine may read."""
    if not isinstance(message, dict):
        return _json(message) + b"\0"
    content = message.get("content")
    if role and isinstance(content, str) and len(message) == 2:  # the usual message
        return f"{role}\0{content[:max_bytes]}\0".encode("utf-8", "replace")
    rest = [message[name] for name in ("tool_calls", "images", "output") if message.get(name)]
    parts = [_text(content, max_bytes), *map(_json, rest)]
    return b"".join([role.encode("utf-8", "replace"), b"\0", *parts, b"\0"])


def _text(content: Any, max_bytes: int) -> bytes:
    """Return a message's text, other parts as JSON; little more than `max_bytes`."""
    if isinstance(content, str):
        return content[:max_bytes].encode("utf-8", "replace")
    if not isinstance(content, list):
        return b"" if content is None else _json(content)
    text = bytearray()
    for part in content:
        inner = part.get("text") if isinstance(part, dict) else part
        if isinstance(inner, str):
            text += inner[:max_bytes].encode("utf-8", "replace")
        else:
            text += _json(part)
        if len(text) > max_bytes:
            break
    return bytes(text)


def _json(value: Any) -> bytes:
    return orjson.dumps(_sampled(value))


def _sampled(value: Any) -> Any:
    """Replace each long text, such as an image, by its length, begin and end."""
    if isinstance(value, str):
        if len(value) <= 2 * _SAMPLE:
            return value
        return len(value), value[:_SAMPLE], value[-_SAMPLE:]
    if isinstance(value, dict):
        return {name: _sampled(item) for name, item in value.items()}
    return [_sampled(item) for item in value] if isinstance(value, list) else value
