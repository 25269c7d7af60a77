"""OpenAI's requests in the terms of llama.cpp, for models that can do more than SmolLM2."""

from typing import Any

import orjson
import pytest

from serve_app.engines.base import Call, ModelCard
from serve_app.engines.llamacpp.openai.requests import checked
from serve_app.errors import BadRequest

CHAT = "/v1/chat/completions"
ABLE = ModelCard("m:latest", capabilities=("completion", "tools", "thinking"))
PLAIN = ModelCard("m:latest")
EMBEDDER = ModelCard("m:latest", capabilities=("embedding",))
MESSAGES = [{"role": "user", "content": "hi"}]


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


A, B = tool("a"), tool("b")


def sent(body: dict[str, Any], card: ModelCard = ABLE, path: str = CHAT) -> Any:
    """Return the body that llama.cpp gets."""
    call = checked(
        Call(path, "m:latest", orjson.dumps({"messages": MESSAGES, **body}), False), card
    )
    expected = orjson.loads(call.body)
    assert expected.pop("messages") == MESSAGES
    return expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"tools": [A, B], "tool_choice": "auto"}),
        ("required", {"tools": [A, B], "tool_choice": "required"}),
        (B, {"tools": [B], "tool_choice": "required"}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [A]}},
            {"tools": [A], "tool_choice": "auto"},
        ),
    ],
)
def test_a_choice_of_tools_is_obeyed(choice: Any, expected: dict[str, Any]) -> None:
    """llama.cpp knows no choice by name: the other tools are left out."""
    assert sent({"tools": [A, B], "tool_choice": choice}) == expected


@pytest.mark.parametrize("choice", ["any", 5, {}, tool("c"), {"type": "allowed_tools"}])
def test_a_choice_that_is_none_is_refused(choice: Any) -> None:
    """A tool_choice that names no tool of the request gives 400."""
    with pytest.raises(BadRequest, match="tool_choice"):
        sent({"tools": [A, B], "tool_choice": choice})


@pytest.mark.parametrize(
    ("effort", "template"),
    [
        ("none", {"enable_thinking": False}),
        ("minimal", {"enable_thinking": True, "reasoning_effort": "low"}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
        ("xhigh", {"enable_thinking": True, "reasoning_effort": "max"}),
    ],
)
def test_an_effort_reaches_the_template(effort: str, template: dict[str, Any]) -> None:
    """OpenAI's levels and Ollama's, in either field."""
    for body in ({"reasoning_effort": effort}, {"reasoning": {"effort": effort}}):
        assert sent(body)["chat_template_kwargs"] == template


@pytest.mark.parametrize("effort", ["ultra", 5, ["high"]])
def test_an_unknown_effort_is_refused(effort: Any) -> None:
    """The levels are named."""
    with pytest.raises(BadRequest, match="high, medium, low, max"):
        sent({"reasoning_effort": effort})


def test_no_effort_is_no_word_about_thinking() -> None:
    """A model that can't think takes `none`, as with Ollama."""
    assert sent({"reasoning_effort": "none"}, PLAIN) == {}


def test_a_schema_may_stand_in_a_json_object_too() -> None:
    """llama.cpp's and others' spelling, rewritten like OpenAI's."""
    schema = {"const": 1}
    requested = {"type": "json_object", "schema": schema}
    expected = sent({"response_format": requested})["response_format"]
    assert expected["json_schema"]["schema"] == {"enum": [1]}


@pytest.mark.parametrize(("path", "verb"), [(CHAT, "chat"), ("/v1/completions", "generate")])
def test_a_model_that_only_embeds_says_so(path: str, verb: str) -> None:
    """In Ollama's words."""
    with pytest.raises(BadRequest, match=f'"m:latest" does not support {verb}'):
        sent({}, EMBEDDER, path)


def test_other_routes_pass_as_they_are() -> None:
    """Their translations check for themselves."""
    call = Call("/v1/messages", "m:latest", b'{"n": 2}', False)
    assert checked(call, PLAIN) is call
