"""The description of an inference route, and helpers that every dialect needs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import orjson

from serve_app.api.relay import AnswerEnd
from serve_app.engines.base import Answer
from serve_app.errors import BadRequest, PoolDown, ServiceError

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RequestBounds:
    """The maximum that one request may ask for."""

    max_tokens: int
    allow_model_options: bool
    max_schema_nodes: int


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API's way to write errors. `error(exc, request_id)` returns the answer's JSON object.

    `ping`: bytes that its streams may have anywhere, b"" where there are none.
    """

    name: str
    error: Callable[[ServiceError, str], Payload]
    ping: bytes = b""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference route: everything that differs between routes.

    `shape` checks the payload and puts the service's bounds into it.
    `event` writes an error into a running stream, given the bytes sent so far.
    `stream_end` reads the tail of a stream, `body_end` a complete JSON answer.
    `mend` corrects an engine's wrong statements in its answer.
    `local` returns an answer that needs no engine, or None.
    """

    path: str
    dialect: Dialect
    keys: frozenset[str]
    shape: Callable[[Payload, RequestBounds], None]
    event: Callable[[Payload, bytes], bytes]
    stream_end: Callable[[bytes], AnswerEnd]
    body_end: Callable[[Payload], AnswerEnd]
    summary: str
    example: Payload
    streams: Literal["default", "on request", "never"] = "on request"
    model_alias: str = ""  # an older name of the field `model`
    empty_body: str = "EOF"  # the error message for a request without a body
    unknown_model: str = "model '{name}' not found"
    tagged_in_errors: bool = False  # whether unknown names are echoed with their tag
    takes_slot: bool = True
    converses: bool = False  # whether requests resend a history, which may be cached somewhere
    counts_on_request: bool = False  # whether streams come without counts unless asked for them
    mend: Callable[[Answer, Payload, RequestBounds], None] = lambda *_: None
    local: Callable[[Payload], Payload | None] = lambda _: None


def loading_field(exc: ServiceError) -> Payload:
    """Return the error's field about a start in progress, if the request waits for one."""
    if not isinstance(exc, PoolDown) or exc.loading is None:
        return {}
    loading: Payload = {"phase": exc.loading.phase}
    if exc.loading.eta_s is not None:
        loading["eta_s"] = round(exc.loading.eta_s, 1)
    return {"loading": loading}


def field_names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def bound_tokens(payload: Payload, key: str, limit: int, also: str | None = None) -> None:
    """Set `key` to the smallest of its value, the value of `also`, and `limit`.

    Values of 0 or less mean no limit. Raises BadRequest unless they are whole numbers.
    """
    for name in (key, also) if also else (key,):
        wish = token_count(payload.pop(name, None), name)
        if wish is not None and 0 < wish < limit:
            limit = wish
    payload[key] = limit


def token_count(value: Any, name: str) -> int | None:
    """Return the value of a field of tokens; JSON has large ones as floats. Raises BadRequest."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise BadRequest(f"{name} must be a whole number")
    return int(value)


def bound_work(payload: Payload, bounds: RequestBounds, *stops: str) -> None:
    """Bound the fields that cost an engine far more than their size suggests.

    `stops`: the names of fields with stop sequences, which lose their empty ones.
    Raises BadRequest for too many log probabilities and for schemas too large to compile.
    """
    for name in ("top_logprobs", "logprobs"):
        value = payload.get(name)
        if isinstance(value, int) and not 0 <= value <= _MAX_LOGPROBS:
            raise BadRequest(f"{name} must be between 0 and {_MAX_LOGPROBS}")
    for name in ("response_format", "format", "text", "output_config"):
        schema = payload.get(name)
        if schema is not None and _nodes(schema) > bounds.max_schema_nodes:
            raise BadRequest(f"the schema in {name} has more than {bounds.max_schema_nodes} parts")
    for name in stops:
        value = payload.get(name)
        if isinstance(value, list):
            payload[name] = [stop for stop in value if stop != ""]
        elif value == "":
            del payload[name]  # an empty sequence would stop at once


_MAX_LOGPROBS = 20


def _nodes(value: Any) -> int:
    """Count the objects and lists in `value`, itself included."""
    if isinstance(value, dict):
        return 1 + sum(map(_nodes, value.values()))
    return 1 + sum(map(_nodes, value)) if isinstance(value, list) else 0


def last_events(tail: bytes, count: int) -> Iterator[Payload]:
    """Yield the JSON objects of the last `count` events or lines in `tail`, newest first."""
    lines = tail.rstrip().rsplit(b"\n", 3 * count)[-3 * count :]
    texts = (line.removeprefix(b"data:").strip() for line in reversed(lines))
    for text in islice((text for text in texts if text.startswith(b"{")), count):
        if isinstance(value := _json(text), dict):
            yield value


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None  # the front of the tail may be cut


def count(values: Any, key: str) -> int | None:
    """Return the count under `key`, or None where an engine sent no such number."""
    value = values.get(key) if isinstance(values, dict) else None
    return value if isinstance(value, int) and value >= 0 else None
