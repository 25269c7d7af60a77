"""Checks Ollama's requests as Ollama does and translates them into llama.cpp's fields."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import orjson

from serve_app.engines.base import Call, ModelCard
from serve_app.engines.llamacpp.abilities import (
    check_completes,
    check_suffix,
    check_thinks,
    check_tools,
)
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.options import (
    check_think,
    response_format,
    sampling,
    thinking,
    unloads,
)

_KINDS = {
    bool: "bool",
    str: "string",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}

# JSON's kind and Go's type of every field in use.
_COMMON = {
    "options": ("object", "map[string]interface {}"),
    "truncate": ("bool", "bool"),
    "logprobs": ("bool", "bool"),
    "top_logprobs": ("number", "int"),
}
_CHAT = _COMMON | {"messages": ("array", "[]api.Message"), "tools": ("array", "api.Tools")}
_GENERATE = _COMMON | {
    "prompt": ("string", "string"),
    "suffix": ("string", "string"),
    "system": ("string", "string"),
    "template": ("string", "string"),
    "raw": ("bool", "bool"),
    "images": ("array", "[]api.ImageData"),
    "context": ("array", "[]int"),
}
_EMBED = {
    "options": _COMMON["options"],
    "truncate": _COMMON["truncate"],
    "dimensions": ("number", "int"),
    "prompt": ("string", "string"),
}
_MESSAGE = {
    "role": ("string", "string"),
    "content": ("string", "string"),
    "thinking": ("string", "string"),
    "images": ("array", "[]api.ImageData"),
    "tool_calls": ("array", "[]api.ToolCall"),
    "tool_name": ("string", "string"),
    "tool_call_id": ("string", "string"),
}

_CALL = {"id": ("string", "string"), "function": ("object", "api.ToolCallFunction")}
_CALLED = {
    "name": ("string", "string"),
    "arguments": ("object", "api.ToolCallFunctionArguments"),
}
_TOOL = {"type": ("string", "string"), "function": ("object", "api.ToolFunction")}
_FUNCTION = {
    "name": ("string", "string"),
    "description": ("string", "string"),
    "parameters": ("object", "api.ToolFunctionParameters"),
}

_TEXT_ONLY = (
    '{"error":{"code":400,"message":"Multimodal data provided, but model does not support '
    'multimodal requests.","type":"invalid_request_error"}}'
)


def read_chat(call: Call, card: ModelCard) -> Json:
    """Return the checked body of a chat request. Raises Refusal 400."""
    body = _read(call, "ChatRequest", _CHAT)
    _check_abilities(body, call.model, card, "chat")
    check_tools(call.model, card, body.get("tools"))
    return body


def read_generate(call: Call, card: ModelCard) -> Json:
    """Return the checked body of a generate request. Raises Refusal 400."""
    body = _read(call, "GenerateRequest", _GENERATE)
    if body.get("raw") and (body.get("template") or body.get("system") or body.get("context")):
        raise Refusal(400, "raw mode does not support template, system, or context")
    _check_abilities(body, call.model, card, "generate")
    check_suffix(call.model, body.get("suffix"))
    if body.get("template"):
        raise Refusal(400, "template is not supported: this engine uses the model's own template")
    _refuse_images(body.get("images"))
    if not all(isinstance(token, int) for token in body.get("context") or ()):
        raise _mismatch("GenerateRequest", "context", next(iter(body["context"])), "int")
    return body


def read_embed(call: Call) -> Json:
    """Return the checked body of /api/embed or /api/embeddings. Raises Refusal 400."""
    struct = "EmbedRequest" if call.path == "/api/embed" else "EmbeddingRequest"
    return _read(call, struct, _EMBED)


def chat_request(body: Json, messages: list[Json], card: ModelCard) -> Json:
    """Return the request to llama.cpp's /v1/chat/completions. Raises Refusal 400."""
    request = {"messages": messages, **_generation(body, card)}
    request |= response_format(body.get("format"))
    if "thinking" in card.capabilities:
        request |= thinking(body.get("think"))
    if tools := body.get("tools"):
        request["tools"] = [_tool(tool) for tool in tools]
    if body.get("logprobs"):
        request |= {"logprobs": True, "top_logprobs": max(body.get("top_logprobs") or 0, 1)}
    return request


def text_request(body: Json, prompt: str, card: ModelCard) -> Json:
    """Return the request to llama.cpp's /completion. Raises Refusal 400."""
    request = {"prompt": prompt, **_generation(body, card)}
    if response := response_format(body.get("format")).get("response_format"):
        request["json_schema"] = response.get("json_schema", {}).get("schema", {"type": "object"})
    if body.get("logprobs"):
        request["n_probs"] = max(body.get("top_logprobs") or 0, 1)
    return request


def chat_messages(body: Json) -> list[Json]:
    """Return the messages of a chat request for llama.cpp. Raises Refusal 400."""
    return [_message(message) for message in body["messages"]]


def prompt_messages(body: Json) -> list[Json]:
    """Return the messages that a generate request stands for."""
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return [*system, {"role": "user", "content": body["prompt"]}]


def _generation(body: Json, card: ModelCard) -> Json:
    options = sampling(body.get("options") or {}, card.loaded_context_length)
    return {**options, "cache_prompt": True}


def _read(call: Call, struct: str, fields: Mapping[str, tuple[str, str]]) -> Json:
    body: Json = orjson.loads(call.body)
    check_types(body, struct, fields)
    check_think(body.get("think"))
    unloads(body.get("keep_alive"))
    if not 0 <= (body.get("top_logprobs") or 0) <= 20:
        raise Refusal(400, "top_logprobs must be between 0 and 20")
    return body


def _check_abilities(body: Json, model: str, card: ModelCard, verb: str) -> None:
    check_thinks(model, card, body.get("think"))
    check_completes(model, card, verb)


def check_types(body: Json, struct: str, fields: Mapping[str, tuple[str, str]]) -> None:
    """Raise Refusal 400, in Go's words, for a field of another type than in `fields`."""
    for name, (kind, go_type) in fields.items():
        value = body.get(name)
        if value is None:
            continue
        if _KINDS[type(value)] != kind or (go_type == "int" and isinstance(value, float)):
            raise _mismatch(struct, name, value, go_type)


def _mismatch(struct: str, name: str, value: Any, go_type: str) -> Refusal:
    actual = _KINDS.get(type(value), "null")
    if isinstance(value, float):
        actual += f" {value}"
    place = f"Go struct field {struct}.{name}"
    return Refusal(400, f"json: cannot unmarshal {actual} into {place} of type {go_type}")


def _message(message: Any) -> Json:
    if not isinstance(message, dict):
        raise _mismatch("ChatRequest", "messages", message, "api.Message")
    check_types(message, "ChatRequest.messages", _MESSAGE)
    _refuse_images(message.get("images"))
    role, content = message.get("role") or "", message.get("content") or ""
    optional = {
        "reasoning_content": message.get("thinking"),
        "tool_calls": [_tool_call(call) for call in message.get("tool_calls") or ()],
        "name": message.get("tool_name"),
        "tool_call_id": message.get("tool_call_id"),
    }
    present = {name: value for name, value in optional.items() if value}
    return {"role": role.lower(), "content": content, **present}


def _tool(tool: Any) -> Json:
    """Check a tool and complete it: llama.cpp requires fields that Ollama leaves out."""
    if not isinstance(tool, dict):
        raise _mismatch("ChatRequest", "tools", tool, "api.Tool")
    check_types(tool, "Tool", _TOOL)
    function = tool.get("function") or {}
    check_types(function, "ToolFunction", _FUNCTION)
    if not function.get("name"):
        raise Refusal(400, "a tool must have a function with a name")
    return {**tool, "type": tool.get("type") or "function", "function": function}


def _tool_call(call: Any) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise Refusal(400, "a tool call must be an object with a function")
    check_types(call, "ToolCall", _CALL)
    check_types(function, "ToolCallFunction", _CALLED)
    arguments = orjson.dumps(function.get("arguments") or {}).decode()
    return {
        "id": call.get("id") or "",
        "type": "function",
        "function": {"name": function.get("name") or "", "arguments": arguments},
    }


def _refuse_images(images: list[Any] | None) -> None:
    """Refuse images, because the engine reads text only; an invalid one as invalid."""
    for image in images or ():
        if not isinstance(image, str):
            raise _mismatch("ChatRequest", "messages.images", image, "[]uint8")
        _check_base64(image)
    if images:
        raise Refusal(400, _TEXT_ONLY)


def _check_base64(data: str) -> None:
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as exc:
        foreign = re.search(r"[^A-Za-z0-9+/]", data)
        at = foreign.start() if foreign else len(data)
        raise Refusal(400, f"illegal base64 data at input byte {at}") from exc
