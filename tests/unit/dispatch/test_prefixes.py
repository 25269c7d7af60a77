"""Chains of conversations, and what each replica is believed to have cached of them."""

import tracemalloc
from typing import Any

import pytest

from serve_app.dispatch.prefixes import (
    BLOCK_BYTES,
    Chain,
    chain_of,
    unpack,
)
from serve_app.dispatch.prompt_text import MAX_VALUES

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


class Counter:
    """Counts the values that were looked at, in all lists and objects made with it."""

    def __init__(self) -> None:
        self.seen = 0

    def list(self, items: Any) -> list[Any]:
        counter = self

        class Counted(list[Any]):
            def __getitem__(self, index: Any) -> Any:
                counter.seen += 1
                return super().__getitem__(index)

            def __iter__(self) -> Any:
                for item in super().__iter__():
                    counter.seen += 1
                    yield item

        return Counted(items)

    def object(self, **items: Any) -> dict[str, Any]:
        counter = self

        class Counted(dict[str, Any]):
            def items(self) -> Any:
                for item in super().items():
                    counter.seen += 1
                    yield item

        return Counted(items)


MANY = 1_000_000
HUGE = {
    "messages": lambda c: {"messages": c.list([message("x")] * MANY)},
    "empty messages": lambda c: {"messages": c.list([message("")] * MANY)},
    "messages that are none": lambda c: {"messages": c.list([[]] * MANY)},
    "system messages": lambda c: {"messages": c.list([message("", "system")] * MANY)},
    "parts": lambda c: {"messages": [message(c.list([{"type": "text", "text": "x"}] * MANY))]},
    "empty parts": lambda c: {"messages": [message(c.list([{"type": "text", "text": ""}] * MANY))]},
    "parts without text": lambda c: {"messages": [message(c.list([{"type": "file"}] * MANY))]},
    "parts of a system prompt": lambda c: {"system": c.list([{"text": ""}] * MANY)},
    "images": lambda c: {"messages": [message("x", images=c.list(["aGk="] * MANY))]},
    "calls of tools": lambda c: {
        "messages": [message("", tool_calls=c.list([c.object(a=1)] * MANY))]
    },
    "small tools": lambda c: {"tools": c.list([c.object(name="f", strict=True)] * MANY)},
    "one tool": lambda c: {"tools": [c.object(**{f"p{n}": {} for n in range(200_000)})]},
    "tools of many MiB": lambda c: {"tools": c.list([c.object(description="d" * 4000)] * 8000)},
}


@pytest.mark.parametrize("kind", HUGE)
def test_the_work_on_a_prompt_of_many_values_is_bounded(kind: str) -> None:
    """Of a million messages, parts or tools only the first ones are looked at."""
    counter = Counter()
    chain = chain_of(HUGE[kind](counter), "m", MAX)
    assert chain.is_cut
    assert 0 < counter.seen <= MAX_VALUES + 2
    assert len(chain.blocks) <= MAX // BLOCK_BYTES


def test_the_bytes_of_tools_are_bounded() -> None:
    """Of 32 MiB no more is looked at than belongs to one context; long names are text too."""
    counter = Counter()
    tools = counter.list([counter.object(description="d" * 4000)] * 8000)
    assert chain_of({"tools": tools}, "m", MAX).is_cut
    assert counter.seen <= 2 * MAX // 4000 + 4
    named = counter.list([counter.object(**{"n" * 4000: 1})] * 8000)
    assert chain_of({"tools": named}, "m", MAX).is_cut
    assert counter.seen <= 4 * (MAX // 4000 + 2)


def test_tools_beyond_the_bound_are_no_part_of_the_known_beginning() -> None:
    """Prompts that differ before it have less in common; where they differ behind it, all of it."""
    tools = [{"name": f"tool {number}"} for number in range(MAX_VALUES)]
    whole = chat(*TALK, tools=tools)
    assert whole.is_cut
    assert chat(*TALK, tools=tools[:9000]) == whole
    early = chat(*TALK, tools=[*tools[:100], {"name": "other"}, *tools[101:]])
    assert 0 < common(early, whole) < 10
    assert not chat(*TALK, tools=tools[:500]).is_cut


def test_parts_beyond_the_bound_are_no_part_of_the_known_beginning() -> None:
    parts = [{"type": "text", "text": "part"} for _ in range(3 * MAX_VALUES)]
    whole = chat(message(parts))
    assert whole.is_cut
    assert whole == chat(message([*parts[: 2 * MAX_VALUES], {"text": "other"}]), *TALK)
    assert 0 < whole.text_bytes <= len("part") * MAX_VALUES


def test_blocks_cross_a_connection_packed() -> None:
    blocks = chat(*TALK).blocks
    assert unpack(chat(*TALK).packed()) == tuple(blocks)
