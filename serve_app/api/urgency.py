"""The urgency of a request by its headers: its priority and its deadline."""

from dataclasses import replace
from math import inf
from time import monotonic, perf_counter

from serve_app.api.http import Request
from serve_app.caller_text import mask_keys
from serve_app.engines.base import Flow, Priority
from serve_app.errors import BadRequest

PRIORITY = b"x-priority"
TIMEOUT_MS = b"x-request-timeout-ms"
# Seconds that official clients wait for the next byte: those in Python, those in TypeScript.
_CLIENTS_TIMEOUTS_S = (b"x-stainless-read-timeout", b"x-stainless-timeout")
_ORDER = list(Priority)


def flow_of(request: Request, flow: Flow) -> Flow:
    """Return the caller's flow, in a lower band if the request asks for one. Raises BadRequest."""
    wish = request.headers.get(PRIORITY)
    if wish is None:
        return flow
    try:
        priority = Priority(wish.decode("latin-1").lower())
    except ValueError as exc:
        names = ", ".join(Priority)
        shown = mask_keys(wish.decode("latin-1"))[:100]
        raise BadRequest(f"x-priority must be one of {names}, not {shown!r}") from exc
    is_lower = _ORDER.index(priority) > _ORDER.index(flow.priority)
    return replace(flow, priority=priority) if is_lower else flow


def deadline_of(request: Request, started: float) -> float | None:
    """Return the deadline of the first byte, on the event loop's clock.

    `started`: arrival of the request, on the clock of `perf_counter`. Raises BadRequest.
    """
    seconds = _timeout_s(request)
    if seconds is None:
        return None
    return monotonic() + seconds - (perf_counter() - started)


def _timeout_s(request: Request) -> float | None:
    headers = request.headers
    wish = headers.get(TIMEOUT_MS)
    if wish is not None:
        if not wish.isdigit() or len(wish) > 12:
            shown = mask_keys(wish.decode("latin-1"))[:100]
            raise BadRequest(
                f"x-request-timeout-ms must be a whole number of milliseconds, not {shown!r}"
            )
        return int(wish) / 1000
    for name in _CLIENTS_TIMEOUTS_S:
        if name in headers:
            return _seconds(headers[name])
    return None


def _seconds(text: bytes) -> float | None:
    """Return seconds, or None for a value with which clients mean no time-out."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < inf else None
