"""Texts of prompts and answers, in every dialect, streamed or whole."""

from typing import Any

import orjson
import pytest

from serve_app.tracing.content import answer_text, content_attributes
from serve_app.tracing.context import TraceContext
from serve_app.tracing.finish import finish_reason
from serve_app.tracing.notes import SpanNotes

ANSWERS = {
    "openai stream": (
        b'data: {"choices":[{"delta":{"role":"assistant","content":"Hel"}}]}\n\n'
        b'data: {"choices":[{"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n',
        "stop",
    ),
    "openai": (b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"length"}]}', "length"),
    "completion": (b'{"choices":[{"text":"Hello","finish_reason":"stop"}]}', "stop"),
    "ollama stream": (
        b'{"message":{"role":"assistant","content":"Hel"},"done":false}\n'
        b'{"message":{"content":"lo"},"done":true,"done_reason":"stop"}\n',
        "stop",
    ),
    "generate": (b'{"response":"Hello","done":true,"done_reason":"length"}', "length"),
    "anthropic stream": (
        b'event: message_start\ndata: {"type":"message_start","message":{"content":[],'
        b'"stop_reason":null}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":'
        b'{"type":"text_delta","text":"Hello"}}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":'
        b'{"stop_reason":"end_turn"}}\n\n',
        "end_turn",
    ),
    "anthropic": (
        b'{"content":[{"type":"text","text":"Hello"}],"stop_reason":"max_tokens"}',
        "max_tokens",
    ),
    "responses stream": (
        b'data: {"type":"response.output_text.delta","delta":"Hel"}\n\n'
        b'data: {"type":"response.output_text.delta","delta":"lo"}\n\n'
        b'data: {"type":"response.completed","response":{"output":[{"content":'
        b'[{"type":"output_text","text":"Hello"}]}]}}\n\n',
        "completed",
    ),
    "responses": (
        b'{"status":"incomplete","output":[{"status":"completed","content":'
        b'[{"type":"output_text","text":"Hello"}]}]}',
        "incomplete",
    ),
}


def test_a_key_in_a_prompt_is_not_exported() -> None:
    notes = SpanNotes(TraceContext(1, 1, True))
    notes.ask({"messages": [{"role": "sk-llm-of-role", "content": "my\nsk-llm-of-mine"}]}, "")
    exported = str(content_attributes(notes))
    assert "of-" not in exported
    assert exported.count("sk-***") == 2


@pytest.mark.parametrize("name", ANSWERS)
def test_the_text_of_an_answer_is_found(name: str) -> None:
    """And the reason for its end."""
    answer, reason = ANSWERS[name]
    assert answer_text(answer) == "Hello"
    assert finish_reason(answer) == reason


@pytest.mark.parametrize("answer", [b"", b"no json", b'{"cut', b"[1]", b'{"choices":7}'])
def test_an_answer_without_a_text_has_none(answer: bytes) -> None:
    """Whatever an engine sends."""
    assert (answer_text(answer), finish_reason(answer)) == ("", "")


def test_an_answer_cannot_claim_a_reason() -> None:
    """A model that writes one writes it into a string, where JSON escapes its quotes."""
    claim = orjson.dumps({"response": '"done_reason":"stop"', "done_reason": "length"})
    assert finish_reason(claim) == "length"


@pytest.mark.parametrize(
    ("payload", "role", "text"),
    [
        ({"messages": [{"role": "system", "content": "be kind"}]}, "system", "be kind"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, {}]}]},
            "user",
            "look",
        ),
        ({"prompt": "the sky"}, "user", "the sky"),
        ({"input": [{"role": "user", "content": [{"text": "hi"}]}]}, "user", "hi"),
        ({"messages": ["odd"]}, "user", "odd"),
        ({"messages": [{"role": 7, "content": None}]}, "user", ""),
        ({"prompt": "x" * 100_000}, "user", "x" * 16_384),
    ],
)
def test_prompts_are_written_as_the_conventions_have_it(
    payload: dict[str, Any], role: str, text: str
) -> None:
    """Texts alone, and only so long."""
    notes = SpanNotes(TraceContext(1, 1, True))
    notes.ask(payload, "")
    value = content_attributes(notes)["gen_ai.input.messages"]
    assert isinstance(value, str)
    assert orjson.loads(value) == [{"role": role, "parts": [{"type": "text", "content": text}]}]
