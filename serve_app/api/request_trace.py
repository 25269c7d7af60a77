"""What is noted of one request while it is answered: for metrics and for its one log line."""

import logging
from enum import StrEnum
from time import perf_counter
from typing import Protocol

from serve_app.api.relay import Usage
from serve_app.errors import ClientError, EngineError, EngineSlow, Overloaded, ServiceError

logger = logging.getLogger("ray.serve")

# Observing a gap costs more than sending a token: one in this many is enough for a histogram.
GAP_SAMPLE = 16


class Outcome(StrEnum):
    OK = "ok"
    CLIENT_ERROR = "client_error"
    UPSTREAM_ERROR = "upstream_error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    INTERNAL_ERROR = "internal_error"


class RequestTrace:
    """One request and its answer. Times are seconds on the monotonic clock."""

    __slots__ = (
        "dialect",
        "ended",
        "first",
        "gaps",
        "is_probe",
        "key_name",
        "last",
        "method",
        "model",
        "outcome",
        "path",
        "pieces",
        "request_id",
        "started",
        "status",
        "stream",
        "usage",
    )

    def __init__(self, method: str, path: str, dialect: str, request_id: str) -> None:
        self.method = method
        self.path = path
        self.dialect = dialect
        self.request_id = request_id
        self.key_name = ""
        self.model = ""  # canonical, or "" while unknown: it labels metrics
        self.stream = False
        self.status = 0
        self.outcome = Outcome.OK
        self.usage = Usage()
        self.started = perf_counter()
        self.first = 0.0  # when the first piece of the body came; 0 before
        self.last = 0.0
        self.pieces = 0
        self.ended = 0.0
        self.is_probe = False  # a probe: no line in the log
        self.gaps: list[float] = []

    def note_chunk(self) -> None:
        """Note that a piece of a streamed body has come."""
        now = perf_counter()
        if self.pieces == 0:
            self.first = now
        elif self.pieces % GAP_SAMPLE == 1:
            self.gaps.append(now - self.last)
        self.last = now
        self.pieces += 1

    def end(self) -> None:
        self.ended = perf_counter()

    def failed(self, exc: ServiceError) -> None:
        self.outcome = _outcome(exc)

    def failed_unexpectedly(self, exc: BaseException) -> None:
        """Count `exc`, which no part of the service raises on purpose, and log its traceback."""
        self.outcome = Outcome.INTERNAL_ERROR
        logger.error(
            "failed to answer %s %s, request %s",
            *(self.method, printable(self.path), printable(self.request_id) or "without an id"),
            exc_info=exc,
        )

    @property
    def ttft(self) -> float | None:
        return self.first - self.started if self.first else None

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def age(self) -> float:
        """Seconds since it ended."""
        return perf_counter() - self.ended

    def fields(self) -> dict[str, object]:
        """For a structured log line; times in milliseconds."""
        return {
            "method": self.method,
            "path": printable(self.path),
            "status": self.status,
            "outcome": str(self.outcome),
            "dialect": self.dialect,
            "model": self.model,
            "stream": self.stream,
            "key": self.key_name,
            "ttft_ms": None if self.ttft is None else round(1000 * self.ttft, 1),
            "duration_ms": round(1000 * self.seconds, 1),
            "prompt_tokens": self.usage.prompt,
            "generated_tokens": self.usage.generated,
            "cached_tokens": self.usage.cached,
        }


def printable(text: str) -> str:
    """A caller's own words, for a log: nothing in them can begin a line or colour a terminal."""
    text = text[:200]
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _outcome(exc: ServiceError) -> Outcome:
    if isinstance(exc, ClientError):
        return Outcome.CLIENT_ERROR
    if isinstance(exc, Overloaded):
        return Outcome.REJECTED
    if isinstance(exc, EngineSlow):
        return Outcome.TIMEOUT
    return Outcome.UPSTREAM_ERROR if isinstance(exc, EngineError) else Outcome.INTERNAL_ERROR


class Observer(Protocol):
    """Told of every trace; must be quick. What it raises is logged and costs no answer."""

    def began(self, trace: RequestTrace) -> None: ...

    def ended(self, trace: RequestTrace) -> None: ...

    def close(self) -> None:
        """There will be no more."""
