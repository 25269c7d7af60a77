"""A prompt longer than the context, as each dialect says it."""

import pytest

from serve_app.api.anthropic import ANTHROPIC
from serve_app.api.ollama import OLLAMA
from serve_app.api.openai import OPENAI
from serve_app.errors import ContextLengthExceeded

TOO_LONG = ContextLengthExceeded(5000, 4096)


def test_openai_has_a_code_for_it() -> None:
    """And a sentence that clients look for."""
    assert OPENAI.error(TOO_LONG, "")["error"] == {
        "message": "This model's maximum context length is 4096 tokens. However, your messages "
        "resulted in 5000 tokens. Please reduce the length of the messages.",
        "type": "invalid_request_error",
        "param": None,
        "code": "context_length_exceeded",
    }


def test_anthropic_has_a_sentence_for_it() -> None:
    """Agents know it by these words."""
    detail = ANTHROPIC.error(TOO_LONG, "id")["error"]
    assert detail["type"] == "invalid_request_error"
    assert detail["message"] == "prompt is too long: 5000 tokens > 4096 maximum"


@pytest.mark.parametrize(("at_least", "length"), [(False, "5000"), (True, "at least 5000")])
def test_ollama_has_both_numbers(at_least: bool, length: str) -> None:
    """A prompt that nobody counted to its end is said to be longer than it may be."""
    error = ContextLengthExceeded(5000, 4096, at_least)
    assert (error.status, OLLAMA.error(error, "")["error"]) == (
        400,
        f"the prompt has {length} tokens, but the context holds 4096 tokens: shorten the prompt",
    )
