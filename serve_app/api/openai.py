"""OpenAI's dialect: chat completions, completions, embeddings, responses."""

from typing import Any

import orjson

from serve_app.api.cut import admit_cut
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
from serve_app.errors import BadRequest, ContextLengthExceeded, RateLimited, ServiceError

# The types that Ollama uses where OpenAI has none.
_KINDS = {
    "overloaded_error": "api_error",
    "timeout_error": "api_error",
    "request_too_large": "invalid_request_error",
}


def _error(exc: ServiceError, request_id: str) -> Payload:
    kind = _KINDS.get(exc.kind, exc.kind)
    error: Payload = {"message": str(exc), "type": kind, "param": None, "code": None}
    if isinstance(exc, ContextLengthExceeded):  # agents shorten their history at this very sentence
        error["message"] = (
            f"This model's maximum context length is {exc.context_tokens} tokens. However, your "
            f"messages resulted in {exc.prompt}. Please reduce the length of the messages."
        )
        error["code"] = "context_length_exceeded"
    if isinstance(exc, RateLimited):
        error |= {"type": exc.counted, "code": "rate_limit_exceeded"}
    return {"error": error | loading_field(exc)}


OPENAI = Dialect("openai", _error, b": ping\n\n")

SAMPLING = field_names(
    "temperature top_p seed stop frequency_penalty presence_penalty "
    "top_k min_p repeat_penalty repeat_last_n"
)
# Ollama ignores some of these; an engine that can't obey one refuses it.
_CHAT = SAMPLING | field_names(
    "model messages stream stream_options max_tokens max_completion_tokens response_format tools "
    "tool_choice parallel_tool_calls reasoning reasoning_effort logprobs top_logprobs user "
    "n logit_bias functions function_call modalities audio web_search_options moderation "
    "prompt_cache_key"
)
_COMPLETION = SAMPLING | field_names(
    "model prompt suffix stream stream_options max_tokens logprobs user n best_of echo logit_bias"
)
_EMBEDDING = field_names("model input encoding_format dimensions user")
_RESPONSE = field_names(
    "model input instructions stream max_output_tokens temperature top_p tools tool_choice "
    "parallel_tool_calls reasoning text truncation user metadata store include top_logprobs "
    "previous_response_id conversation prompt background context_management moderation "
    "max_tool_calls safety_identifier prompt_cache_key"
)


def _event(error: Payload, tail: bytes) -> bytes:
    return b"data: " + orjson.dumps(error) + b"\n\n"


def _response_event(error: Payload, tail: bytes) -> bytes:
    detail = error["error"]
    sent = count(next(last_events(tail, 1), {}), "sequence_number")
    value = {"type": "error", **detail} | {
        "type": "error",
        "code": detail["type"],
        "sequence_number": 0 if sent is None else sent + 1,
    }
    return b"event: error\ndata: " + orjson.dumps(value) + b"\n\n"


def _shape_chat(payload: Payload, bounds: RequestBounds) -> None:
    if payload.get("messages") in (None, []):
        raise BadRequest("[] is too short - 'messages'")
    bound_tokens(payload, "max_tokens", bounds.max_tokens, also="max_completion_tokens")
    bound_work(payload, bounds, "stop")


def _shape_completion(payload: Payload, bounds: RequestBounds) -> None:
    payload["prompt"] = _one_prompt(payload.get("prompt", ""))
    bound_tokens(payload, "max_tokens", bounds.max_tokens)
    bound_work(payload, bounds, "stop")


def _one_prompt(prompt: Any) -> str:
    """Return the prompt of a string or a list of one string. Raises BadRequest."""
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if len(prompts) != 1:
        raise BadRequest(f"prompt must be one string, not a list of {len(prompts)} values")
    if not isinstance(prompts[0], str):
        raise BadRequest("prompt must be a string; lists of tokens are not supported")
    return prompts[0]


def _shape_embedding(payload: Payload, bounds: RequestBounds) -> None:
    """Leave the payload as it is, because the engine checks the input."""


def _shape_response(payload: Payload, bounds: RequestBounds) -> None:
    bound_tokens(payload, "max_output_tokens", bounds.max_tokens)
    bound_work(payload, bounds)


def usage(value: Any) -> Usage:
    """Read OpenAI's `usage`, or llama.cpp's `timings` beside it, from any JSON value."""
    used, timings = _part(value, "usage"), _part(value, "timings")
    details = used.get("prompt_tokens_details") or used.get("input_tokens_details")
    cached = count(details, "cached_tokens") if details else count(timings, "cache_n")
    prompt = count(used, "prompt_tokens") or count(used, "input_tokens")
    generated = count(used, "completion_tokens") or count(used, "output_tokens")
    if not used and timings:
        prompt = (count(timings, "prompt_n") or 0) + (cached or 0)
        generated = count(timings, "predicted_n")
    return Usage(
        *(prompt, generated, cached),
        _seconds(timings, "prompt_ms"),
        _seconds(timings, "predicted_ms"),
    )


def _seconds(timings: Payload, name: str) -> float | None:
    value = timings.get(name)
    return value / 1000 if isinstance(value, int | float) and value > 0 else None


def _part(value: Any, name: str) -> Payload:
    part = value.get(name) if isinstance(value, dict) else None
    return part if isinstance(part, dict) else {}


_ENDING = 256  # bytes with the final marker, and any blank lines after it


def _stream_end(tail: bytes) -> AnswerEnd:
    is_complete = tail[-_ENDING:].rstrip().endswith(b"\ndata: [DONE]")
    first: Payload | None = None
    for event in last_events(tail, 2):
        first = event if first is None else first
        if event.get("usage") or event.get("timings"):
            return AnswerEnd(is_complete, "error" in first, usage(event))
    return AnswerEnd(is_complete, first is not None and "error" in first)


def _body_end(body: Payload) -> AnswerEnd:
    choices = body.get("choices") or [{}]
    return AnswerEnd(all(choice.get("finish_reason") for choice in choices), usage=usage(body))


def _embedding_end(body: Payload) -> AnswerEnd:
    return AnswerEnd("data" in body, usage=usage(body))


_FINAL_RESPONSES = ("response.completed", "response.incomplete", "response.failed")


def _response_stream_end(tail: bytes) -> AnswerEnd:
    event: Payload = next(last_events(tail, 1), {})
    kind = event.get("type")
    if kind not in _FINAL_RESPONSES:
        return AnswerEnd(False, error_sent=kind == "error")
    return AnswerEnd(True, usage=usage(event.get("response")))


def _response_end(body: Payload) -> AnswerEnd:
    used = usage(body)
    # Ollama calls an answer that it has cut "completed", but does not count its tokens.
    return AnswerEnd(bool(used.generated) or not body.get("output"), usage=used)


_HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]

ENDPOINTS = (
    Endpoint(
        path="/v1/chat/completions",
        dialect=OPENAI,
        keys=_CHAT,
        shape=_shape_chat,
        event=_event,
        stream_end=_stream_end,
        body_end=_body_end,
        converses=True,
        counts_on_request=True,
        summary="Chat",
        example={"messages": _HELLO, "max_tokens": 32, "stream": False},
    ),
    Endpoint(
        path="/v1/completions",
        dialect=OPENAI,
        keys=_COMPLETION,
        shape=_shape_completion,
        event=_event,
        stream_end=_stream_end,
        body_end=_body_end,
        counts_on_request=True,
        summary="Continue a text",
        example={"prompt": "The sky is", "max_tokens": 16},
    ),
    Endpoint(
        path="/v1/embeddings",
        dialect=OPENAI,
        keys=_EMBEDDING,
        shape=_shape_embedding,
        event=_event,
        stream_end=_stream_end,
        body_end=_embedding_end,
        summary="Embed one text or several",
        example={"input": "hello"},
        streams="never",
        unknown_model='model "{name}" not found, try pulling it first',
    ),
    Endpoint(
        path="/v1/responses",
        dialect=OPENAI,
        keys=_RESPONSE,
        shape=_shape_response,
        event=_response_event,
        stream_end=_response_stream_end,
        body_end=_response_end,
        mend=admit_cut,
        converses=True,
        summary="Responses (no state is kept)",
        example={"input": "Say hello.", "max_output_tokens": 32},
    ),
)
