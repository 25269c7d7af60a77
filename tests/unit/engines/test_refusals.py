"""llama.cpp's refusals, as the errors that callers read."""

import json

import pytest

from serve_app.engines.llamacpp.client import read_refusal
from serve_app.engines.llamacpp.refusals import in_our_words, meaning
from serve_app.errors import BadRequest, ContextLengthExceeded, EngineDown, EngineLost


@pytest.mark.parametrize(
    ("original", "translated"),
    [
        (
            "Field 'seed': [json.exception.type_error.302] type must be number, but is array",
            "seed: a value must be a number, not an array",
        ),
        (
            "[json.exception.type_error.302] type must be string, but is null",
            "a value must be a string, not null",
        ),
        (
            "Failed to parse messages: [json.exception.out_of_range.403] key 'text' not found",
            "messages: key 'text' not found",
        ),
        (
            "Failed to parse tools: Expected 'tools' to be an array, got 5; tools = 5",
            "tools: Expected 'tools' to be an array",
        ),
        (
            'Failed to parse tools: Missing tool type: "x"; tools = [\n  "x"\n]',
            'tools: Missing tool type: "x"',
        ),
        ("Expected 'messages' to be an array", "Expected 'messages' to be an array"),
    ],
)
def test_a_librarys_words_are_put_in_ours(original: str, translated: str) -> None:
    """The field is named, and its value is not repeated."""
    assert in_our_words(original) == translated


def refusal(**error: object) -> Exception:
    return read_refusal(400, json.dumps({"error": error}))


def test_a_prompt_too_long_keeps_its_numbers() -> None:
    """Those that llama.cpp gave."""
    too_long = refusal(type="exceed_context_size_error", n_prompt_tokens=700, n_ctx=512, message="")
    error = meaning(too_long)  # type: ignore[arg-type]
    assert isinstance(error, ContextLengthExceeded)
    assert (error.prompt_tokens, error.context_tokens, error.at_least) == (700, 512, False)


def test_what_the_engine_could_not_do_is_no_mistake() -> None:
    """Nor is an engine that still loads, or an answer that is no JSON."""
    assert isinstance(meaning(refusal(message="Compute error.")), EngineLost)  # type: ignore[arg-type]
    assert isinstance(meaning(refusal(message="bad")), BadRequest)  # type: ignore[arg-type]
    assert isinstance(read_refusal(503, '{"error": {"message": "Loading model"}}'), EngineDown)
    assert isinstance(read_refusal(502, "<html>"), EngineLost)
