"""Arguments of tools with `strict: true` keep to their schema, in every dialect that has it."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from serve_app.engines.base import Call, ModelCard
from serve_app.engines.llamacpp import messages, responses
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.openai.requests import checked
from serve_app.engines.llamacpp.strict_tools import kept
from serve_app.errors import BadRequest

ABLE = ModelCard("m:latest", capabilities=("completion", "tools"))
SAY = [{"role": "user", "content": "hi"}]


def of_chat(schema: Json, **more: Any) -> Json:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, **more}}
    body = orjson.dumps({"messages": SAY, "tools": [tool]})
    return orjson.loads(checked(Call("/v1/chat/completions", "m", body, False), ABLE).body)


def of_responses(schema: Json, **more: Any) -> Json:
    tool = {"type": "function", "name": "f", "parameters": schema, **more}
    return responses.chat_request({"input": "hi", "tools": [tool]}, "m", ABLE)


def of_messages(schema: Json, **more: Any) -> Json:
    tool = {"name": "f", "input_schema": schema, **more}
    return messages.chat_request({"messages": SAY, "tools": [tool], "max_tokens": 9}, "m", ABLE)


DIALECTS = [of_chat, of_responses, of_messages]
Ask = Callable[..., Json]


def arguments(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def schema_in(request: Json) -> Json:
    (tool,) = request["tools"]
    schema: Json = tool["function"]["parameters"]
    return schema


@pytest.mark.parametrize("ask", DIALECTS)
def test_the_schema_of_a_strict_tool_is_rewritten(ask: Ask) -> None:
    """What llama.cpp would drop is put in words that it obeys; descriptions stay for the model."""
    year = {"type": "string", "pattern": r"^\d{4}$", "description": "the year"}
    listed = {"type": "array", "items": {"allOf": [{"enum": [1, 2]}, {"enum": [2]}]}}
    sent = schema_in(ask({**arguments(year=year, n=listed), "description": "all"}, strict=True))
    assert sent["description"] == "all"
    assert sent["properties"]["year"] == {**year, "pattern": "^[0-9]{4,4}$"}
    assert sent["properties"]["n"]["items"] == {"enum": [2]}
    assert sent["additionalProperties"] is False


@pytest.mark.parametrize("ask", DIALECTS)
def test_what_a_strict_tool_can_not_keep_is_refused(ask: Ask) -> None:
    """The refusal names the tool, the keyword and its place."""
    schema = arguments(a={"type": "string", "pattern": "^(?=b)b$"})
    with pytest.raises((Refusal, BadRequest), match=r"tools\[0\].*pattern at #/properties/a"):
        ask(schema, strict=True)
    with pytest.raises((Refusal, BadRequest), match=r"tools\[0\].*strict must be true or false"):
        ask(schema, strict="yes")


def test_all_schemas_of_a_request_have_one_bound() -> None:
    """As a body of megabytes has room for thousands of tools."""
    schema = arguments(**{f"a{n}": {"type": "string"} for n in range(100)})
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    assert len(kept([tool] * 9)) == 9
    with pytest.raises(Refusal, match=r"tools\[\d+\]: the schema's part .* is too large"):
        kept([tool] * 900)


@pytest.mark.parametrize("ask", DIALECTS)
@pytest.mark.parametrize("more", [{}, {"strict": False}, {"strict": None}])
def test_other_tools_pass_as_they_are(ask: Ask, more: Json) -> None:
    """Nobody promises that their arguments are valid."""
    schema = arguments(a={"type": "string", "pattern": "^(?=b)b$"})
    assert schema_in(ask(schema, **more)) == schema


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (5, r"tools\[0\] must be an object"),
        (
            {"type": "custom", "custom": {"name": "f"}},
            r'tools\[0\].type: "custom" is not supported',
        ),
        ({"type": "function"}, r"tools\[0\].function must be an object"),
        ({"type": "function", "function": {}}, r"tools\[0\].function.name must be a string"),
        (
            {"type": "function", "function": {"name": "f", "parameters": 5}},
            r"tools\[0\].function.parameters must be an object",
        ),
    ],
)
def test_a_tool_that_is_none_is_named(tool: Any, words: str) -> None:
    """By its place in the list."""
    body = orjson.dumps({"messages": SAY, "tools": [tool]})
    with pytest.raises(BadRequest, match=words):
        checked(Call("/v1/chat/completions", "m", body, False), ABLE)
