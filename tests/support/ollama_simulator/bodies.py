"""Reads request bodies as Go does, with Go's error texts."""

import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from serve_app.simulator.bodies import Body
from serve_app.simulator.failures import ErrorAnswer

_KINDS = {bool: "bool", str: "string", list: "array", dict: "object"}
_BEGINNINGS = {
    "Expecting property name enclosed in double quotes": "object key string",
    "Expecting value": "value",
}


@dataclass(frozen=True, slots=True)
class GoStruct:
    """A Go type for a body; `fields`: the types of the checked fields."""

    name: str
    fields: dict[str, tuple[type, str]] = field(default_factory=dict)


def _struct(name: str, **fields: tuple[type, str]) -> GoStruct:
    return GoStruct(name, {"model": (str, "string"), **fields})


STRUCTS = {
    "/api/chat": _struct("api.ChatRequest", messages=(list, "[]api.Message")),
    "/api/generate": _struct("api.GenerateRequest"),
    "/api/show": _struct("api.ShowRequest"),
    "/api/pull": _struct("api.PullRequest"),
    "/api/delete": _struct("api.DeleteRequest"),
    "/api/embed": _struct("api.EmbedRequest"),
    "/api/embeddings": _struct("api.EmbeddingRequest"),
    "/v1/chat/completions": _struct(
        "openai.ChatCompletionRequest", messages=(list, "[]openai.Message")
    ),
    "/v1/completions": _struct("openai.CompletionRequest", prompt=(str, "string")),
    "/v1/responses": _struct("openai.ResponsesRequest"),
    "/v1/embeddings": _struct("openai.EmbedRequest"),
    "/v1/messages": _struct(
        "anthropic.MessagesRequest", messages=(list, "[]anthropic.MessageParam")
    ),
}


def read(data: bytes, path: str) -> Body:
    """Read the body of a request for `path`. Raises ErrorAnswer 400 in Go's words."""
    if not data:
        empty = "EOF" if path.startswith("/v1/") else "missing request body"
        raise ErrorAnswer(400, empty, early=True)
    value = _value(data)
    if value is None:
        return {}
    struct = STRUCTS[path]
    if not isinstance(value, dict):
        message = f"json: cannot unmarshal {_kind(value)} into Go value of type {struct.name}"
        raise ErrorAnswer(400, message, early=True)
    _check_fields(value, struct)
    return value


def _check_fields(body: Body, struct: GoStruct) -> None:
    for key, (kind, go_type) in struct.fields.items():
        value = body.get(key)
        if value is not None and not isinstance(value, kind):
            place = f"{struct.name.partition('.')[2]}.{key}"
            message = (
                f"json: cannot unmarshal {_kind(value)} into Go struct field {place} "
                f"of type {go_type}"
            )
            raise ErrorAnswer(400, message, early=True)


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "number")


def _value(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _value_with_bad_text(data)


def _value_with_bad_text(data: bytes) -> Any:
    # Go puts U+FFFD where text is not UTF-8 and goes on; orjson gives up.
    text = data.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise ErrorAnswer(400, _error_text(text, exc), early=True) from exc


def _error_text(text: str, exc: json.JSONDecodeError) -> str:
    if exc.pos >= len(text):
        return "unexpected EOF"
    where = _BEGINNINGS.get(exc.msg)
    place = f"looking for beginning of {where}" if where else "after top-level value"
    return f"invalid character {text[exc.pos]!r} {place}"
