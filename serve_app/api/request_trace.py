"""Notes on one request while it is answered, for metrics and for its line in the log."""

import logging
from time import perf_counter
from typing import Protocol

from serve_app.access.caller import ANONYMOUS, Caller
from serve_app.access.limits.quotas import LimitRefusal
from serve_app.api.outcome import Outcome, error_outcome
from serve_app.api.relay import AnswerEnd
from serve_app.caller_text import one_word, printable
from serve_app.engines.base import Placed, Priority, Usage
from serve_app.errors import InternalError, IssuerDown, ServiceError
from serve_app.tracing.notes import SpanNotes

logger = logging.getLogger("ray.serve")

# Observing a gap costs more than sending a token, and a sample is enough for a histogram.
GAP_SAMPLE = 16


class RequestTrace:
    """One request and its answer. Times are seconds on the monotonic clock."""

    __slots__ = (
        "caller",
        "chunks",
        "dialect",
        "ended",
        "error",
        "estimated",
        "first_chunk_at",
        "gaps",
        "is_probe",
        "is_uncounted",
        "last_chunk_at",
        "limit",
        "method",
        "model",
        "outcome",
        "path",
        "placed",
        "priority",
        "queued_s",
        "replica",
        "request_id",
        "requested",
        "span",
        "span_headers",
        "started",
        "status",
        "stream",
        "usage",
        "user",
    )

    def __init__(self, method: str, path: str, dialect: str, request_id: str) -> None:
        self.method = method
        self.path = path
        self.dialect = dialect
        self.request_id = request_id
        self.caller = ANONYMOUS
        self.priority = Priority.STANDARD
        self.queued_s: float | None = None  # None: the request has not left the queue, or had none
        self.replica = ""  # the replica that has answered, if it is another process
        self.user = ""  # the caller's own customer, as the caller names it; labels no metric
        self.model = ""  # canonical; "" until it is known, because it labels metrics
        self.requested = ""  # the model or alias that the caller named, canonical
        self.stream = False
        self.status = 0
        self.outcome = Outcome.OK
        self.error: BaseException | None = None  # the error that has ended the request
        self.usage = Usage()
        self.estimated = False  # whether `usage` is an estimate, not an engine's count
        self.limit = ""  # the limit that refuses the request, or would if limits were enforced
        self.is_uncounted = False  # whether its limits could not be checked, served or refused
        self.placed: Placed | None = None  # None: its replica was not predicted
        self.span: SpanNotes | None = None  # None: the request is not traced
        self.span_headers: tuple[tuple[str, str], ...] = ()  # for other processes
        self.started = perf_counter()
        self.chunks = 0
        self.first_chunk_at = 0.0  # 0 before the first chunk of the body
        self.last_chunk_at = 0.0
        self.ended = 0.0
        self.is_probe = False  # probes get no line in the log
        self.gaps: list[float] = []

    @property
    def is_unauthorized(self) -> bool:
        """Whether the service refused the caller: a request with a model reached an engine."""
        return self.status == 401 and not self.model

    @property
    def is_from_stranger(self) -> bool:
        """Whether the service refused a caller without a name: anyone can send such requests."""
        is_refused = self.status in (401, 403) or isinstance(self.error, IssuerDown)
        return is_refused and not (self.model or self.caller.name)

    def note_probe(self) -> None:
        self.is_probe = True

    def note_caller(self, caller: Caller) -> None:
        self.caller = caller
        self.priority = caller.priority

    def note_priority(self, priority: Priority) -> None:
        self.priority = priority

    def note_queue(self, seconds: float) -> None:
        """Note how long the request has waited in queues."""
        self.queued_s = seconds

    def note_user(self, user: str) -> None:
        self.user = user

    def note_stream(self, stream: bool) -> None:
        self.stream = stream

    def note_model(self, model: str) -> None:
        self.model = model
        self.requested = self.requested or model

    def note_limit(self, refusal: LimitRefusal | None, is_uncounted: bool) -> None:
        """Note the limit that refuses the request, and whether the store of limits was away."""
        self.limit = refusal.kind if refusal else ""
        self.is_uncounted = is_uncounted

    def note_estimate(self, usage: Usage) -> None:
        """Note the charged tokens, in place of counts that the engine did not send."""
        self.usage, self.estimated = usage, True

    def note_chunk(self) -> None:
        """Note that a chunk of the body has come from the engine."""
        now = perf_counter()
        if self.chunks == 0:
            self.first_chunk_at = now
        elif self.chunks % GAP_SAMPLE == 1:
            self.gaps.append(now - self.last_chunk_at)
        self.last_chunk_at = now
        self.chunks += 1

    def note_status(self, status: int) -> None:
        """Note the status line of the answer."""
        self.status = status

    def finish(self, end: AnswerEnd, error: ServiceError | None = None) -> None:
        """Note how the body of an engine's answer ended; `error`: sent to the client."""
        self.usage = end.usage
        if error:
            self.fail(error)
        elif not end.complete:
            self.outcome = Outcome.UPSTREAM_ERROR

    def refuse(self, status: int) -> None:
        """Note that the engine itself answered with an error."""
        self.outcome = Outcome.CLIENT_ERROR if status < 500 else Outcome.UPSTREAM_ERROR

    def cancel(self) -> None:
        """Note that the client disconnected, or that the server ended the request."""
        self.outcome = Outcome.CANCELLED

    def fail(self, exc: BaseException) -> None:
        """Note `exc` as the outcome; log its traceback unless the service raised it on purpose."""
        self.error = exc
        cause = exc.__cause__ if isinstance(exc, InternalError) else None
        if isinstance(exc, ServiceError) and cause is None:
            self.outcome = error_outcome(exc)
        else:
            self._fail_unexpectedly(cause or exc)

    def end(self) -> None:
        """Stop the clock."""
        self.ended = perf_counter()

    def _fail_unexpectedly(self, exc: BaseException) -> None:
        self.outcome = Outcome.INTERNAL_ERROR
        logger.error(
            "failed to answer %s %s, request %s",
            *(self.method, one_word(self.path), one_word(self.request_id) or "without an id"),
            exc_info=exc,
        )

    @property
    def ttft(self) -> float | None:
        """Seconds from the request to the first chunk of the body, if one came."""
        return self.first_chunk_at - self.started if self.first_chunk_at else None

    @property
    def seconds(self) -> float:
        """Seconds from the request to the end of the answer."""
        return self.ended - self.started

    @property
    def age(self) -> float:
        """Seconds since the end of the answer."""
        return perf_counter() - self.ended

    @property
    def trace_id(self) -> str:
        """The id of the request's trace, "" if it is not traced."""
        return self.span.trace_id if self.span else ""

    def fields(self) -> dict[str, object]:
        """Return the fields of a structured log line; times in milliseconds."""
        return {
            "method": self.method,
            "path": printable(self.path),
            "status": self.status,
            "outcome": str(self.outcome),
            "dialect": self.dialect,
            "model": self.model,
            "stream": self.stream,
            "key": self.caller.name,
            "group": self.caller.group,
            "priority": str(self.priority),
            "user": printable(self.user),
            "ttft_ms": None if self.ttft is None else round(1000 * self.ttft, 1),
            "duration_ms": round(1000 * self.seconds, 1),
            "prompt_tokens": self.usage.prompt,
            "generated_tokens": self.usage.generated,
            "cached_tokens": self.usage.cached,
            "estimated": self.estimated,
            "replica": self.placed.replica if self.placed else "",
            "predicted_ttft_ms": round(1000 * self.placed.predicted_s, 1) if self.placed else None,
            "predicted_cached_tokens": self.placed.cached_tokens if self.placed else None,
            "limit": self.limit,
            "uncounted": self.is_uncounted,
            "trace_id": self.trace_id,
        }


class Observer(Protocol):
    """Takes note of every request. Must be quick; its exceptions are logged and cost no answer."""

    def began(self, trace: RequestTrace) -> None: ...

    def ended(self, trace: RequestTrace) -> None: ...

    def note_keys_file(self, valid: bool) -> None:
        """Note whether the file of keys could be read. Called from any thread."""

    def close(self) -> None:
        """Release resources: no more requests follow."""
