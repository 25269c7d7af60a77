"""Reads the JSON object of a request body, and the fields that routing depends on."""

from typing import Any

import orjson

from serve_app.errors import BadRequest

# The encoder's bound; real requests nest far less.
MAX_DEPTH = 254
# Objects, lists, strings and numbers of one body. Every other request waits while they are decoded:
# 9 million in 25 MiB took 1.4 s, and the longest conversations of agents have some thousands.
MAX_VALUES = 200_000


def read_object(body: bytes, keys: frozenset[str], empty: str = "EOF") -> dict[str, Any]:
    """Return the JSON object in `body`, with known `keys` only, in their canonical spelling.

    Go's decoder, which Ollama uses, matches keys in any case and lets the last of equal keys win.
    The same happens here before any check, so that the checks see the same object as the engine.
    Keys without a meaning to any engine are dropped. `empty`: the message for an empty body.

    Raises BadRequest for a body that is not one JSON object in UTF-8, for one nested deeper than
    MAX_DEPTH, so that code that walks through the value needs no bound of its own, and for one of
    more than MAX_VALUES values.
    """
    if not body.strip():
        raise BadRequest(empty)
    if len(body) > 2 * MAX_VALUES and not _has_few_values(body):  # a value takes two bytes
        raise BadRequest(f"the request body has more than {MAX_VALUES} JSON values")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        if "depth limit" in str(exc):  # the decoder's own, far above the bound
            raise _too_deep() from exc
        raise BadRequest(f"invalid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BadRequest(f"the request body must be a JSON object, not {_json_type(value)}")
    value = value if value.keys() <= keys else _fold(value, keys)
    if len(body) > 2 * MAX_DEPTH:  # deep values have long bodies
        encode_body(value)  # the cheapest way to measure the depth
    return value


def _has_few_values(body: bytes) -> bool:
    """Tell, without decoding the body, whether it surely has at most MAX_VALUES values."""
    if _values(body) <= MAX_VALUES:  # a long text, perhaps: marks within it are counted, too
        return True
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 4 * MAX_VALUES:  # a value has a name and a text at most
        return False
    return _values(b"".join(text.split(b'"')[::2])) <= MAX_VALUES


def _values(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _fold(value: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    # Go folds two letters beyond ASCII onto ASCII; `lower` folds one, the other key is dropped.
    folded = ((key if key in keys else key.lower(), item) for key, item in value.items())
    return {key: item for key, item in folded if key in keys}


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def encode_body(payload: dict[str, Any]) -> bytes:
    """Encode `payload` as UTF-8 JSON. Raises BadRequest when it nests deeper than MAX_DEPTH."""
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError as exc:
        raise _too_deep() from exc


def _too_deep() -> BadRequest:
    return BadRequest(f"the request body is nested deeper than {MAX_DEPTH} levels")


def model_of(payload: dict[str, Any]) -> str:
    """Return the requested model, as the caller spells it. Raises BadRequest."""
    model = payload.get("model")
    if model is None or model == "":
        raise BadRequest("model is required")
    if not isinstance(model, str):
        raise BadRequest(f"model must be a string, not {_json_type(model)}")
    return model


def stream_of(payload: dict[str, Any], default: bool) -> bool:
    """Tell whether the request asks for a stream. Raises BadRequest."""
    stream = payload.get("stream")
    if stream is None:
        return default
    if not isinstance(stream, bool):
        raise BadRequest(f"stream must be a boolean, not {_json_type(stream)}")
    return stream
