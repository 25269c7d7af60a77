"""Chains of conversations, and what each replica is believed to have cached of them."""

import tracemalloc
from typing import Any

import pytest

from serve_app.dispatch.prefixes import (
    BLOCK_BYTES,
    Chain,
    chain_of,
    hint_anchor,
    unpack,
)

LONG = "a long system prompt " * 60
MAX = 1 << 16


def message(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def chat(*messages: dict[str, Any], **more: Any) -> Chain:
    return chain_of({"messages": list(messages), **more}, "m", MAX)


def common(left: Chain, right: Chain) -> int:
    """Return the blocks from which both begin."""
    pairs = enumerate(zip(left.blocks, right.blocks, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(map(len, (left.blocks, right.blocks))))


TALK = (
    message(LONG, "system"),
    message("first question " * 60),
    message("answer " * 99, "assistant"),
)


def test_a_later_turn_begins_with_the_earlier_one() -> None:
    """Every whole block of the history is found again."""
    first, later = chat(*TALK), chat(*TALK, message("second question " * 60))
    assert common(first, later) == len(first.blocks) == 5


def test_an_edited_history_has_its_beginning_in_common() -> None:
    """Up to the block with the edit, and nothing behind it."""
    edited = chat(TALK[0], message("another question " * 60), TALK[2])
    assert common(chat(*TALK), edited) == len(LONG) // BLOCK_BYTES


def test_conversations_with_one_system_prompt_have_anchors_of_their_own() -> None:
    """The anchor reaches to the end of the first message of the user, and no further."""
    one = chat(message(LONG, "system"), message("one"))
    assert one.anchor != chat(message(LONG, "system"), message("two")).anchor
    later = chat(message(LONG, "system"), message("one"), message("x", "assistant"))
    assert one.anchor == later.anchor


def test_the_model_is_part_of_every_block() -> None:
    """What one model has read is of no use to another."""
    payload = {"messages": list(TALK)}
    assert not common(chain_of(payload, "m", MAX), chain_of(payload, "n", MAX))


@pytest.mark.parametrize(
    "payload",
    [
        {"system": LONG, "messages": [message("hi")]},
        {"system": [{"type": "text", "text": LONG}], "messages": [message("hi")]},
        {"instructions": LONG, "input": "hi"},
        {"instructions": LONG, "input": [message([{"type": "input_text", "text": "hi"}])]},
    ],
)
def test_every_dialect_has_its_system_part(payload: dict[str, Any]) -> None:
    chain = chain_of(payload, "m", MAX)
    assert chain.system_blocks == len(LONG) // BLOCK_BYTES
    assert chain.anchor


def test_tools_come_before_the_conversation() -> None:
    """Other tools are another beginning, even before equal messages."""
    tool = {"type": "function", "function": {"name": "f", "description": LONG}}
    with_tool = chat(*TALK[1:], tools=[tool])
    assert with_tool.system_blocks > 1
    assert not common(with_tool, chat(*TALK[1:]))


def test_images_and_calls_of_tools_tell_conversations_apart() -> None:
    """By their begin, end and length: a long one is not read."""
    chains = {
        chat(message([{"type": "image_url", "image_url": {"url": image}}])).anchor
        for image in ("A" * 9000, "B" * 9000, "A" * 9001, "A" * 4500 + "B" * 4500)
    }
    chains |= {chat(message("", tool_calls=[{"function": {"name": n}}])).anchor for n in "fg"}
    assert len(chains) == 6


@pytest.mark.parametrize(
    "messages",
    ["text", {"role": "user"}, [None, 1, "x", ["y"]], [{"role": 7, "content": {"a": 1}}], [{}]],
)
def test_messages_that_are_none_are_read_without_an_error(messages: Any) -> None:
    """The engine refuses them; until then they are a text like any other."""
    assert chain_of({"messages": messages, "tools": "x", "system": 3}, "m", MAX).anchor


def test_the_work_on_a_long_prompt_is_bounded() -> None:
    """32 MiB in one message cost what the first `max_bytes` cost."""
    content = "x" * (32 << 20)
    tracemalloc.start()
    chain = chat(message(content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert chain.is_cut
    assert len(chain.blocks) == MAX // BLOCK_BYTES
    assert peak < 8 * MAX


def test_the_work_on_many_messages_is_bounded() -> None:
    """Of a million messages only the first ones are looked at."""

    class Messages(list[Any]):
        seen = 0

        def __getitem__(self, index: Any) -> Any:
            Messages.seen += 1
            return super().__getitem__(index)

        def __iter__(self) -> Any:
            for item in super().__iter__():
                Messages.seen += 1
                yield item

    chain = chain_of({"messages": Messages([message("x")] * 1_000_000)}, "m", MAX)
    assert chain.is_cut
    assert Messages.seen < MAX


def test_a_hint_is_bound_to_its_group() -> None:
    """Equal hints of two groups have nothing in common, and a long one costs as little as any."""
    assert hint_anchor("g", "talk") != hint_anchor("h", "talk")
    assert len(hint_anchor("g", "x" * 65536)) == len(hint_anchor("g", "\ud800")) == 8


def test_blocks_cross_a_connection_packed() -> None:
    blocks = chat(*TALK).blocks
    assert unpack(chat(*TALK).packed()) == tuple(blocks)
