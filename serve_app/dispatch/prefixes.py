"""The common beginnings of prompts.

A conversation is cut into blocks of BLOCK_BYTES in the order in which the engine reads it: system
messages, tools, then the other messages with role and text. The hash of a block covers all blocks
before it, so that equal hashes mean equal beginnings. Two prompts made to have equal hashes mislead
the placement of these two alone, so a fast hash will do.
"""

import struct
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from xxhash import xxh3_64_intdigest

from serve_app.dispatch.prompt_text import SYSTEM_ROLES, ReadingBound, prompt_pieces

BLOCK_BYTES = 512
_HASH_BYTES = 8


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


def chain_of(payload: Mapping[str, Any], model: str, max_bytes: int) -> Chain:
    """Return the chain of a checked request of any dialect; read at most `max_bytes` of text.

    The rest, or what is beyond `prompt_text.MAX_VALUES`, is in no block: it counts as unknown.
    """
    pieces: list[bytes] = []
    bound = ReadingBound(max_bytes)
    length = system_bytes = first_user = 0
    for role, piece in prompt_pieces(payload, bound):
        pieces.append(piece)
        length += len(piece)
        if role in SYSTEM_ROLES:
            system_bytes = length
        elif not first_user and role == "user":
            first_user = length
        if length > max_bytes or bound.is_reached:
            break
    text = b"".join(pieces)[:max_bytes]
    return Chain(
        _blocks(text, model),
        _hash(text[: first_user or max_bytes], model.encode()),
        min(system_bytes, max_bytes) // BLOCK_BYTES,
        len(text),
        length > max_bytes or bound.is_reached,
    )


def _blocks(text: bytes, model: str) -> tuple[int, ...]:
    blocks, running = [], xxh3_64_intdigest(model.encode())
    for start in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
        running = xxh3_64_intdigest(text[start : start + BLOCK_BYTES], running)
        blocks.append(running)
    return tuple(blocks)


def _hash(text: bytes, before: bytes) -> bytes:
    return blake2b(before + b"\0" + text, digest_size=_HASH_BYTES).digest()
