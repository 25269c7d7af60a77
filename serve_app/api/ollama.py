"""Ollama's native dialect: chat, generate, embed, show, and the listings."""

from typing import Any

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
)
from serve_app.api.relay import AnswerEnd
from serve_app.engines.base import Usage
from serve_app.errors import BadRequest, ServiceError
from serve_app.go_json import now, parse_duration

# A request that differs in one of these makes Ollama restart its engine while others wait.
RELOADING_OPTIONS = field_names(
    "num_ctx num_thread num_batch num_gpu main_gpu use_mmap use_mlock low_vram numa shift"
)


def _error(exc: ServiceError, request_id: str) -> Payload:
    return {"error": str(exc), **loading_field(exc)}


OLLAMA = Dialect("ollama", _error)

_COMMON = field_names("model stream format keep_alive options think logprobs top_logprobs")
_CHAT = _COMMON | field_names("messages tools truncate shift")
_GENERATE = _COMMON | field_names("prompt suffix system template context raw images truncate shift")
_EMBED = field_names("model input truncate keep_alive options dimensions")
_EMBEDDINGS = field_names("model prompt keep_alive options")
_SHOW = field_names("model name system template options verbose")


def _event(error: Payload, tail: bytes) -> bytes:
    return orjson.dumps(error) + b"\n"


def _shape_generation(payload: Payload, bounds: RequestBounds) -> None:
    options = _options(payload, bounds)
    bound_tokens(options, "num_predict", bounds.max_tokens)
    bound_work(options, bounds, "stop")
    bound_work(payload, bounds)
    payload["options"] = options


def _shape_embedding(payload: Payload, bounds: RequestBounds) -> None:
    options = _options(payload, bounds)
    if options:
        payload["options"] = options


def _options(payload: Payload, bounds: RequestBounds) -> Payload:
    """Return the options without those that would make all callers wait for a reload."""
    options = payload.pop("options", None) or {}
    if not isinstance(options, dict):
        raise BadRequest("options must be an object")
    if bounds.allow_model_options:
        return options
    payload.pop("keep_alive", None)
    payload.pop("shift", None)
    return {key: value for key, value in options.items() if key.lower() not in RELOADING_OPTIONS}


def _shape_show(payload: Payload, bounds: RequestBounds) -> None:
    """Leave the payload as it is, because nothing is generated."""


def _usage(value: Payload) -> Usage:
    return Usage(
        prompt=count(value, "prompt_eval_count"),
        generated=count(value, "eval_count"),
        prefill_s=_seconds(value, "prompt_eval_duration"),
        decode_s=_seconds(value, "eval_duration"),
    )


def _seconds(value: Any, name: str) -> float | None:
    nanoseconds = count(value, name)
    return nanoseconds / 1e9 if nanoseconds else None


def _stream_end(tail: bytes) -> AnswerEnd:
    line: Payload = next(last_events(tail, 1), {})
    return AnswerEnd(line.get("done") is True, error_sent="error" in line, usage=_usage(line))


def _body_end(body: Payload) -> AnswerEnd:
    return AnswerEnd(body.get("done") is True, usage=_usage(body))


def _any_end(body: Payload) -> AnswerEnd:
    return AnswerEnd(True, usage=_usage(body))


def _unload(answer: Payload, prompt: str) -> Any:
    """Return a function that answers requests to unload a model, which stays for other callers."""

    def local(payload: Payload) -> Payload | None:
        if payload.get(prompt) or not _is_zero(payload.get("keep_alive")):
            return None
        head = {"model": payload["model"], "created_at": now()}
        return head | answer | {"done": True, "done_reason": "unload"}

    return local


def _is_zero(keep_alive: Any) -> bool:
    """Tell whether `keep_alive`, a number of seconds or a duration such as "0m", is zero."""
    if not isinstance(keep_alive, str):
        return keep_alive == 0 and not isinstance(keep_alive, bool)
    try:
        return parse_duration(keep_alive) == 0
    except ValueError:
        return False


_HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]
_MISSING = "missing request body"
_UNKNOWN_EMBED = 'model "{name}" not found, try pulling it first'

ENDPOINTS = (
    Endpoint(
        path="/api/chat",
        dialect=OLLAMA,
        keys=_CHAT,
        shape=_shape_generation,
        event=_event,
        stream_end=_stream_end,
        body_end=_body_end,
        summary="Chat",
        example={"messages": _HELLO, "stream": False, "options": {"num_predict": 32}},
        streams="default",
        empty_body=_MISSING,
        converses=True,
        local=_unload({"message": {"role": "assistant", "content": ""}}, "messages"),
    ),
    Endpoint(
        path="/api/generate",
        dialect=OLLAMA,
        keys=_GENERATE,
        shape=_shape_generation,
        event=_event,
        stream_end=_stream_end,
        body_end=_body_end,
        summary="Continue a prompt",
        example={"prompt": "The sky is", "stream": False, "options": {"num_predict": 16}},
        streams="default",
        empty_body=_MISSING,
        local=_unload({"response": ""}, "prompt"),
    ),
    Endpoint(
        path="/api/embed",
        dialect=OLLAMA,
        keys=_EMBED,
        shape=_shape_embedding,
        event=_event,
        stream_end=_stream_end,
        body_end=_any_end,
        summary="Embed one text or several",
        example={"input": "hello"},
        streams="never",
        empty_body=_MISSING,
        unknown_model=_UNKNOWN_EMBED,
    ),
    Endpoint(
        path="/api/embeddings",
        dialect=OLLAMA,
        keys=_EMBEDDINGS,
        shape=_shape_embedding,
        event=_event,
        stream_end=_stream_end,
        body_end=_any_end,
        summary="Embed one text (legacy)",
        example={"prompt": "hello"},
        streams="never",
        empty_body=_MISSING,
        unknown_model=_UNKNOWN_EMBED,
    ),
    Endpoint(
        path="/api/show",
        dialect=OLLAMA,
        keys=_SHOW,
        model_alias="name",
        shape=_shape_show,
        event=_event,
        stream_end=_stream_end,
        body_end=_any_end,
        summary="Describe a model",
        example={},
        streams="never",
        empty_body=_MISSING,
        tagged_in_errors=True,
        takes_slot=False,
    ),
)

# Account and management routes of Ollama: (method, path).
MANAGEMENT = (
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/me"),
    ("POST", "/api/signout"),
    ("POST", "/api/experimental/web_search"),
    ("POST", "/api/experimental/web_fetch"),
)
MANAGEMENT_REFUSED = (
    "models are managed by the operator of this service, not over its API: they are named in its "
    "settings (SERVE_APP_MODELS, or `models` of a pool) and loaded before a replica takes requests"
)
