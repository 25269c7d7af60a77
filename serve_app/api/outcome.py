"""The outcome of a request, a label of its metrics and a field of its log line."""

from enum import StrEnum

from serve_app.errors import (
    ClientError,
    DeadlineExceeded,
    EngineError,
    EngineSlow,
    IssuerDown,
    Overloaded,
    ServiceError,
    StoreDown,
)


class Outcome(StrEnum):
    OK = "ok"
    CLIENT_ERROR = "client_error"
    UPSTREAM_ERROR = "upstream_error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    INTERNAL_ERROR = "internal_error"


def error_outcome(exc: ServiceError) -> Outcome:
    """Return the outcome of a request that ends with this error."""
    if isinstance(exc, ClientError):
        return Outcome.CLIENT_ERROR
    if isinstance(exc, Overloaded | IssuerDown | StoreDown):
        return Outcome.REJECTED
    if isinstance(exc, EngineSlow | DeadlineExceeded):
        return Outcome.TIMEOUT
    return Outcome.UPSTREAM_ERROR if isinstance(exc, EngineError) else Outcome.INTERNAL_ERROR
