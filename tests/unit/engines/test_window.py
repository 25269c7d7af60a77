"""What can't fit into a slot is told by its bytes, and never sent to llama.cpp."""

import json
from typing import Any

import pytest

from serve_app.engines.llamacpp.client import PromptTooLong
from serve_app.engines.llamacpp.prompts.fitting import can_shorten, clip, ends, prompt_bytes
from serve_app.engines.llamacpp.prompts.window import ContextWindow

WINDOW = ContextWindow(context=9, token_bytes=10)  # 100 bytes
ANY = ContextWindow(context=9, token_bytes=0)


def message(content: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


def text(prompt: str, kept: int = 4) -> dict[str, Any]:
    return {"prompt": prompt, "n_keep": kept, "seed": 1}


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), "seed": 1, **more}


@pytest.mark.parametrize(("kept", "head"), [(0, 10), (4, 50), (50, 100), (-1, 100)])
def test_a_text_keeps_what_a_cut_by_tokens_may_leave(kept: int, head: int) -> None:
    """Bytes of `n_keep` tokens and one more at its beginning, those of a whole slot at its end."""
    prompt = "".join(chr(0x4E00 + n) for n in range(500))
    kept_text = clip(text(prompt, kept), WINDOW)["prompt"]
    assert kept_text.startswith(prompt[: head // 3])
    assert kept_text.endswith(prompt[-33:])
    assert 100 <= len(kept_text.encode()) <= head + 100
    assert len(kept_text.encode()) > 9 * 10  # more tokens than the context, whatever they are


@pytest.mark.parametrize(
    "request_",
    [text("x" * 150), chat(message("x" * 50)), chat(message("s", "system"), message("x" * 40))],
)
def test_what_may_fit_is_left_alone(request_: dict[str, Any]) -> None:
    """A prompt within the window is sent as it is."""
    assert clip(request_, WINDOW) == request_


@pytest.mark.parametrize("request_", [text("x" * 10**5), chat(message("x" * 10**5))])
def test_without_a_longest_token_everything_may_fit(request_: dict[str, Any]) -> None:
    """A vocabulary with a token for any unknown word bounds nothing."""
    assert clip(request_, ANY) == request_
    ANY.check(prompt_bytes(request_, ANY))


def test_a_conversation_loses_its_oldest_messages_but_for_the_systems() -> None:
    """As few as leave something that may fit."""
    old, system, new = message("x" * 60), message("s", "system"), message("y" * 20)
    clipped = clip(chat(old, system, old, old, new), ContextWindow(context=14, token_bytes=10))
    assert clipped == chat(system, old, new)


def test_a_last_message_keeps_its_end() -> None:
    """One that can't fit alone is cut to the bytes of a slot, which is still too much."""
    clipped = clip(chat(message("x" * 60), message("abc" * 100 + "狐")), WINDOW)
    assert clipped == chat(message(("abc" * 100 + "狐").encode()[-100:].decode()))


def test_many_empty_messages_are_too_many() -> None:
    """Each is a token at least: no more are rendered than the context has tokens."""
    clipped = clip(chat(*[message("")] * 10**5), WINDOW)
    assert len(clipped["messages"]) == 10


@pytest.mark.parametrize(
    "request_",
    [
        chat(message("s" * 200, "system"), message("x" * 200)),
        chat(message("hi"), tools=[{"function": {"name": "f" * 200}}]),
    ],
)
def test_what_must_stay_may_be_too_long(request_: dict[str, Any]) -> None:
    """The system's message and the tools are never cut: refused in llama.cpp's words."""
    with pytest.raises(PromptTooLong, match=r"at least \d\d tokens") as refused:
        clip(request_, WINDOW)
    error = json.loads(str(refused.value))["error"]
    assert list(error) == ["code", "message", "type", "n_prompt_tokens", "n_ctx"]
    assert error["n_prompt_tokens"] > error["n_ctx"] == 9


@pytest.mark.parametrize("role", ["system", "developer"])
def test_what_an_operator_says_stays(role: str) -> None:
    """In OpenAI's newer word for it as well; a request need not say how much of a text stays."""
    rules, old, new = message("s" * 20, role), message("x" * 60), message("y" * 60)
    assert clip(chat(rules, old, new), WINDOW) == chat(rules, new)
    assert clip({"prompt": "x" * 500}, WINDOW) == {"prompt": "x" * 150}


def test_text_in_parts_is_cut_as_one() -> None:
    """OpenAI's content may be a list of texts."""
    parts = [{"type": "text", "text": "a" * 200}, {"type": "text", "text": "b" * 60}]
    clipped = clip(chat({"role": "user", "content": parts}), WINDOW)
    assert clipped == chat(message("a" * 39 + "\n" + "b" * 60))


@pytest.mark.parametrize(
    ("request_", "can"),
    [
        ({"prompt": "x"}, True),
        ({"prompt": [1, 2]}, False),
        (chat(message("x")), True),
        (chat({"role": "assistant", "content": None, "tool_calls": []}), True),
        (chat(message("x"), tools=None), True),
        (chat(message("x"), tools=5), False),
        (chat({"role": "user", "content": [{"type": "text", "text": "x"}]}), True),
        (chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}), False),
        (chat({"role": "user", "content": 5}), False),
        (chat(), False),
        ({"messages": "x"}, False),
        ({"messages": ["x"]}, False),
        ({}, False),
    ],
)
def test_only_texts_can_be_shortened(request_: dict[str, Any], can: bool) -> None:
    """Anything else is llama.cpp's to refuse."""
    assert can_shorten(request_) is can


def test_a_context_keeps_its_ends() -> None:
    """Of the tokens of earlier turns, as many from both ends as a slot holds."""
    assert ends(list(range(10)), 4) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert ends(list(range(8)), 4) == list(range(8))


LONG = "x" * 200
BLOCK = {"type": "text", "text": LONG}
CALL = {"function": {"name": "f", "arguments": LONG}}


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/v1/completions", {"prompt": LONG}),
        ("/v1/chat/completions", {"messages": [message(LONG)]}),
        ("/v1/chat/completions", {"messages": [message("")] * 20}),
        ("/v1/chat/completions", {"messages": [message("")], "tools": [{"name": LONG}]}),
        ("/v1/chat/completions", {"messages": [{"content": [BLOCK]}]}),
        ("/v1/chat/completions", {"messages": [{"content": [BLOCK | {"image_url": ""}]}]}),
        ("/v1/chat/completions", {"messages": [{"content": [], "reasoning_content": LONG}]}),
        ("/v1/chat/completions", {"messages": [{"content": [], "tool_calls": [CALL]}]}),
        ("/v1/responses", {"input": LONG}),
        ("/v1/responses", {"input": "", "instructions": LONG}),
        ("/v1/responses", {"input": [message(LONG)]}),
        ("/v1/messages", {"messages": [message("hi")], "system": LONG}),
        ("/v1/messages", {"messages": [{"content": [BLOCK]}]}),
    ],
)
async def test_other_dialects_are_told_at_once(path: str, request_: dict[str, Any]) -> None:
    """What can't fit is counted wherever its text is."""
    body = json.dumps(request_).encode()
    await ANY.check_body(body)
    with pytest.raises(PromptTooLong, match=r"at least \d+ tokens\) exceeds") as refused:
        await WINDOW.check_body(body)
    assert refused.value.at_least
    assert refused.value.tokens > refused.value.context == 9


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/v1/completions", {"prompt": "x" * 90, "stop": LONG}),
        ("/v1/chat/completions", {"messages": [{"content": [{"image_url": LONG}]}]}),
        ("/v1/chat/completions", {"messages": [{"content": "hi", "images": [LONG]}]}),
        ("/v1/messages", {"messages": [{"content": [{"content": [{"source": LONG}]}]}]}),
        ("/v1/chat/completions", {"messages": 5, "user": LONG}),
        ("/v1/responses", {"user": LONG}),
    ],
)
async def test_a_long_body_is_no_long_prompt(path: str, request_: dict[str, Any]) -> None:
    """What is no text of the prompt does not count; of an image llama.cpp has more to say."""
    await WINDOW.check_body(json.dumps(request_).encode())
