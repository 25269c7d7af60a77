"""Requests in Ollama's dialect whose mistakes only llama.cpp would find, or a real Ollama."""

from typing import Any

import orjson
import pytest

from serve_app.engines.base import Call, ModelCard
from serve_app.engines.llamacpp import messages
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.native.requests import chat_messages, chat_request, read_chat
from serve_app.engines.llamacpp.options import sampling

ABLE = ModelCard("m:latest", loaded_context_length=64, capabilities=("completion", "tools"))
SAY = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}}


def sent(**body: Any) -> Json:
    """Return the request to llama.cpp."""
    call = Call("/api/chat", "m:latest", orjson.dumps({"messages": [SAY], **body}), False)
    checked = read_chat(call, ABLE)
    return chat_request(checked, chat_messages(checked), ABLE)


def called(function: Any, **more: Any) -> list[Json]:
    return [SAY, {"role": "assistant", "tool_calls": [{"function": function, **more}]}, SAY]


@pytest.mark.parametrize("tool", [{"function": FUNCTION}, {"type": None, "function": FUNCTION}])
def test_a_tool_needs_no_type(tool: Json) -> None:
    """Ollama takes one without; llama.cpp does not."""
    assert sent(tools=[tool])["tools"] == [{"type": "function", "function": FUNCTION}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"tools": [[]]}, "cannot unmarshal array into Go struct field ChatRequest.tools"),
        ({"tools": [5]}, "cannot unmarshal number into Go struct field ChatRequest.tools"),
        ({"tools": [{"type": 5}]}, "cannot unmarshal number into Go struct field Tool.type"),
        (
            {"tools": [{"function": []}]},
            "cannot unmarshal array into Go struct field Tool.function",
        ),
        ({"tools": [{"function": {"name": 5}}]}, "struct field ToolFunction.name of type string"),
        ({"tools": [{}]}, "a tool must have a function with a name"),
        (
            {"tools": [{"function": {"name": "f", "parameters": []}}]},
            "cannot unmarshal array into Go struct field ToolFunction.parameters",
        ),
        ({"messages": called({"name": "f"}, id=5)}, "number into Go struct field ToolCall.id"),
        ({"messages": called({"name": 5})}, "number into Go struct field ToolCallFunction.name"),
        (
            {"messages": called({"name": "f", "arguments": "{"})},
            "cannot unmarshal string into Go struct field ToolCallFunction.arguments",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_named(body: Json, words: str) -> None:
    """In Ollama's words, with 400."""
    with pytest.raises(Refusal, match=words) as refused:
        sent(**body)
    assert refused.value.status == 400


@pytest.mark.parametrize("value", [1e300, -1e300, 2**63])
def test_an_integer_has_64_bits(value: float) -> None:
    """A larger one could not be sent on."""
    with pytest.raises(Refusal, match='option "top_k" must be of type integer'):
        sampling({"top_k": value}, 64)
    with pytest.raises(Refusal, match="top_k"):
        body = {"messages": [SAY], "max_tokens": 9, "top_k": value}
        messages.chat_request(body, "m", ABLE)
