"""Anthropic's dialect: messages."""

import orjson

from serve_app.api.endpoint import (
    Dialect,
    Endpoint,
    Payload,
    RequestBounds,
    bound_tokens,
    bound_work,
    count,
    field_names,
    last_events,
    loading_field,
    token_count,
)
from serve_app.api.relay import AnswerEnd
from serve_app.engines.base import Usage
from serve_app.errors import BadRequest, ContextLengthExceeded, ServiceError


def _error(exc: ServiceError, request_id: str) -> Payload:
    detail = {"type": exc.kind, "message": str(exc)}
    if isinstance(exc, ContextLengthExceeded):  # agents shorten their history at this very sentence
        detail["message"] = f"prompt is too long: {exc.prompt} > {exc.context_tokens} maximum"
    error = detail | loading_field(exc)
    return {"type": "error", "error": error, "request_id": request_id}


ANTHROPIC = Dialect("anthropic", _error, b'event: ping\ndata: {"type": "ping"}\n\n')

_KEYS = field_names(
    "model messages system max_tokens stream temperature top_p top_k stop_sequences tools "
    "tool_choice thinking metadata output_config container mcp_servers"
)


def _event(error: Payload, tail: bytes) -> bytes:
    return b"event: error\ndata: " + orjson.dumps(error) + b"\n\n"


def _shape(payload: Payload, bounds: RequestBounds) -> None:
    limit = token_count(payload.get("max_tokens"), "max_tokens")
    if limit is None or limit <= 0:
        raise BadRequest("max_tokens is required and must be positive")
    if not payload.get("messages"):
        raise BadRequest("messages is required")
    bound_tokens(payload, "max_tokens", bounds.max_tokens)
    bound_work(payload, bounds, "stop_sequences")


def _usage(*parts: object) -> Usage:
    """Merge the usages of a message. That of `message_start` is left out, as it may be a guess."""
    merged: Payload = {}
    for part in parts:
        merged |= part if isinstance(part, dict) else {}
    cached = count(merged, "cache_read_input_tokens")
    prompt = count(merged, "input_tokens")
    return Usage(
        None if prompt is None else prompt + (cached or 0), count(merged, "output_tokens"), cached
    )


def _stream_end(tail: bytes) -> AnswerEnd:
    events = list(last_events(tail, 2))
    kinds = [event.get("type") for event in events]
    used = next((e.get("usage") for e in events if e.get("type") == "message_delta"), None)
    return AnswerEnd(
        kinds[:1] == ["message_stop"], error_sent=kinds[:1] == ["error"], usage=_usage(used)
    )


def _body_end(body: Payload) -> AnswerEnd:
    return AnswerEnd(bool(body.get("stop_reason")), usage=_usage(body.get("usage")))


ENDPOINTS = (
    Endpoint(
        path="/v1/messages",
        dialect=ANTHROPIC,
        keys=_KEYS,
        shape=_shape,
        event=_event,
        stream_end=_stream_end,
        body_end=_body_end,
        converses=True,
        summary="Messages",
        example={
            "max_tokens": 32,
            "messages": [{"role": "user", "content": "Say hello in one short sentence."}],
        },
    ),
)
