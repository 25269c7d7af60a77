"""What the dialects have in common: the description of an endpoint, the end of an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from serve_app.api.relay import End
from serve_app.engines.base import Answer
from serve_app.errors import BadRequest, ServiceError

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may ask for at most."""

    max_tokens: int
    allow_model_options: bool
    max_schema_nodes: int


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one API writes an error. `error(exc, request_id)` is the JSON object of the answer."""

    name: str
    error: Callable[[ServiceError, str], Payload]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference route, complete: everything that differs between routes stands here.

    `shape` checks the payload and puts our bounds into it; `event` writes an error into a running
    stream, given what has been sent of it; `mend` corrects what an engine says wrongly of its
    answer; `stream_end` reads the tail of a stream, `body_end` a whole JSON answer.
    """

    path: str
    dialect: Dialect
    keys: frozenset[str]
    shape: Callable[[Payload, Bounds], None]
    event: Callable[[Payload, bytes], bytes]
    stream_end: Callable[[bytes], End]
    body_end: Callable[[Payload], End]
    summary: str
    example: Payload
    streams: bool | None = False  # by default; None: never, whatever the caller says
    empty_body: str = "EOF"
    unknown_model: str = "model '{name}' not found"
    tagged_in_errors: bool = False  # unknown names are echoed with their tag
    takes_slot: bool = True
    mend: Callable[[Answer, Payload, Bounds], None] = lambda *_: None
    local: Callable[[Payload], Payload | None] = lambda _: None  # answers without the engine


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def bound_tokens(payload: Payload, key: str, limit: int, also: str | None = None) -> None:
    """Make `key` the effective limit: the smallest of it, `also` and ours; 0 or less is no limit.

    Raises BadRequest unless they are whole numbers.
    """
    asked = [_tokens(payload.pop(name, None), name) for name in (key, also) if name]
    payload[key] = min([limit, *(n for n in asked if n is not None and n > 0)])


def _tokens(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise BadRequest(f"{name} must be a whole number")
    return int(value)


def bound_work(payload: Payload, bounds: Bounds, *stops: str) -> None:
    """What costs an engine far more than its size says. `stops`: where stop sequences are.

    Raises BadRequest for too many log probabilities and for schemas too large to compile.
    """
    for name in ("top_logprobs", "logprobs"):
        value = payload.get(name)
        if isinstance(value, int) and not 0 <= value <= _MAX_LOGPROBS:
            raise BadRequest(f"{name} must be between 0 and {_MAX_LOGPROBS}")
    for name in ("response_format", "format", "text", "output_config"):
        if _nodes(payload.get(name)) > bounds.max_schema_nodes:
            raise BadRequest(f"the schema in {name} has more than {bounds.max_schema_nodes} parts")
    for name in stops:
        given = payload.get(name)
        if isinstance(given, list):
            payload[name] = [stop for stop in given if stop != ""]
        elif given == "":
            del payload[name]  # it would stop at once


_MAX_LOGPROBS = 20


def _nodes(value: Any) -> int:
    """Objects and lists in `value`, itself included."""
    if isinstance(value, dict):
        return 1 + sum(map(_nodes, value.values()))
    return 1 + sum(map(_nodes, value)) if isinstance(value, list) else 0


def last_events(tail: bytes, count: int) -> list[Any]:
    """The JSON values of the last `count` SSE events or NDJSON lines in `tail`, newest first."""
    lines = tail.rstrip().rsplit(b"\n", 3 * count)[-3 * count :]
    values = []
    for line in reversed(lines):
        text = line.removeprefix(b"data:").strip()
        if text.startswith(b"{"):
            values.append(_json(text))
    return [value for value in values[:count] if isinstance(value, dict)]


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None  # cut at the front by the length of the tail


def count(values: Any, key: str) -> int | None:
    value = values.get(key) if isinstance(values, dict) else None
    return value if isinstance(value, int) and value >= 0 else None
