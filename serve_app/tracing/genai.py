"""Names of OpenTelemetry's conventions for generative AI, and the attributes of a request's span.

The names are those of release 0.1.0 (2026): https://github.com/open-telemetry/semantic-conventions-genai.
The service's own begin with `serve_app.`.
"""

from collections.abc import Mapping
from typing import Any

from serve_app.api.outcome import Outcome
from serve_app.api.request_trace import RequestTrace
from serve_app.caller_text import mask_keys
from serve_app.engines.base import Priority, Usage
from serve_app.engines.span import AttributeValue
from serve_app.tracing.finish import finish_reason
from serve_app.tracing.notes import PRIORITY, SpanNotes

SCOPE = "serve_app"
PROVIDER = "ollama"  # every engine speaks its API; the conventions have no name for it
OPERATION_NAME, PROVIDER_NAME = "gen_ai.operation.name", "gen_ai.provider.name"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
ERROR_TYPE = "error.type"
REQUEST_ID = "serve_app.request.id"

CHAT, COMPLETION, EMBEDDINGS = "chat", "text_completion", "embeddings"
# The routes that are traced, with their operations.
OPERATIONS = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": CHAT,
    "/v1/messages": CHAT,
    "/api/chat": CHAT,
    "/v1/completions": COMPLETION,
    "/api/generate": COMPLETION,
    "/v1/embeddings": EMBEDDINGS,
    "/api/embed": EMBEDDINGS,
    "/api/embeddings": EMBEDDINGS,
}
_MAX_SESSION = 256

Attributes = dict[str, AttributeValue]


def span_name(trace: RequestTrace) -> str:
    """Return `{operation} {model}`."""
    return f"{OPERATIONS[trace.path]} {trace.requested}".rstrip()


def request_attributes(trace: RequestTrace, notes: SpanNotes) -> Attributes:
    """Return the attributes of a request's span, once it has ended."""
    values = {
        **_of_request(trace, notes),
        **_of_answer(trace, notes),
        ERROR_TYPE: error_type(trace),
        "http.response.status_code": trace.status or None,
        REQUEST_ID: mask_keys(trace.request_id)[:64] or None,
        PRIORITY: None if trace.priority is Priority.STANDARD else str(trace.priority),
    }
    return {name: value for name, value in values.items() if value is not None}


def _of_request(trace: RequestTrace, notes: SpanNotes) -> dict[str, AttributeValue | None]:
    return {
        OPERATION_NAME: OPERATIONS[trace.path],
        PROVIDER_NAME: PROVIDER,
        REQUEST_MODEL: trace.requested or None,
        "gen_ai.request.stream": trace.stream or None,  # left out where the answer is not streamed
        "gen_ai.request.max_tokens": notes.max_tokens,
        "gen_ai.conversation.id": mask_keys(notes.session)[:_MAX_SESSION] or None,
    }


def _of_answer(trace: RequestTrace, notes: SpanNotes) -> dict[str, AttributeValue | None]:
    if not trace.chunks:
        return {}
    counted = Usage() if trace.estimated else trace.usage
    return {
        RESPONSE_MODEL: trace.model,
        "gen_ai.response.finish_reasons": _finish_reasons(trace, notes),
        "gen_ai.response.time_to_first_chunk": trace.ttft if trace.stream else None,
        "gen_ai.usage.input_tokens": counted.prompt,
        "gen_ai.usage.output_tokens": counted.generated,
        "gen_ai.usage.cache_read.input_tokens": counted.cached,
    }


def _finish_reasons(trace: RequestTrace, notes: SpanNotes) -> list[str] | None:
    """Return the reason of the answer; "error" for a truncated one."""
    if OPERATIONS[trace.path] == EMBEDDINGS:
        return None
    if trace.outcome is not Outcome.OK:
        return ["error"]
    reason = finish_reason(notes.answer)
    return [reason] if reason else None


def max_tokens(payload: Mapping[str, Any]) -> int | None:
    """Return the engine's bound of tokens."""
    options = payload.get("options")
    for fields in (options, payload) if isinstance(options, dict) else (payload,):
        for name in ("max_tokens", "max_output_tokens", "num_predict"):
            if isinstance(bound := fields.get(name), int):
                return bound
    return None


def error_type(trace: RequestTrace) -> str | None:
    """Return the class of the service's error, or the status of an engine's own one."""
    if trace.outcome is Outcome.OK:
        return None
    if trace.error is not None:
        return type(trace.error).__name__
    if trace.outcome is Outcome.CANCELLED:
        return "cancelled"
    return str(trace.status) if trace.status >= 400 else str(trace.outcome)
