"""HttpRequest bodies: one JSON object each, and Go's complaints about anything else."""

import json
from typing import Any

import orjson

from serve_app.simulator.failures import ApiError

Body = dict[str, Any]

_KINDS = {bool: "bool", str: "string", list: "array", dict: "object"}
_BEGINNINGS = {
    "Expecting property name enclosed in double quotes": "object key string",
    "Expecting value": "value",
}


def read(data: bytes, struct: str, empty: str) -> Body:
    """The JSON object in `data`, to be read into the Go type `struct`, e.g. "api.ChatRequest".

    Raises ApiError 400 in Go's words; `empty` is what it says of no body at all.
    """
    if not data:
        raise ApiError(400, empty, early=True)
    value = _value(data)
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = _KINDS.get(type(value), "number")
        message = f"json: cannot unmarshal {kind} into Go value of type {struct}"
        raise ApiError(400, message, early=True)
    return value


def expect(body: Body, struct: str, key: str, kind: type, go_type: str) -> None:
    """Raises ApiError 400 in Go's words if `body[key]` is there and is no `kind`."""
    value = body.get(key)
    if value is None or isinstance(value, kind):
        return
    place = f"{struct.partition('.')[2]}.{key}"
    found = _KINDS.get(type(value), "number")
    message = f"json: cannot unmarshal {found} into Go struct field {place} of type {go_type}"
    raise ApiError(400, message, early=True)


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
        raise ApiError(400, _complaint(text, exc), early=True) from exc


def _complaint(text: str, exc: json.JSONDecodeError) -> str:
    if exc.pos >= len(text):
        return "unexpected EOF"
    where = _BEGINNINGS.get(exc.msg)
    place = f"looking for beginning of {where}" if where else "after top-level value"
    return f"invalid character {text[exc.pos]!r} {place}"
