"""The request log: one line for each trace, through the handlers of Serve's logger."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from logging.handlers import MemoryHandler, RotatingFileHandler
from typing import Any, NamedTuple, Self

from serve_app.api.request_trace import RequestTrace
from serve_app.caller_text import one_word
from serve_app.engines.base import Priority
from serve_app.ray_serve import private

logger = logging.getLogger(private.SERVE_LOGGER)

_REFUSAL_EVERY_S = 60.0


def disable_access_records() -> None:
    """Let Serve's replica make no log record of each request.

    It makes one before it finds that the access log is off, which costs as much as relaying a
    token. Its other records at INFO are lost as well.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        replica_logger = logging.getLogger(f"{private.SERVE_LOGGER}.replica")
        replica_logger.setLevel(logging.WARNING)
        private.set_replica_logger(replica_logger)


class EndedRequest(NamedTuple):
    """The trace of a request that has ended, and Serve's context of the request."""

    trace: RequestTrace
    context: Any

    @classmethod
    def now(cls, trace: RequestTrace) -> Self:
        return cls(trace, private.request_context())


class RequestLog:
    """Writes the lines of several requests together.

    A record made by a logger costs as much as the head of a stream: the logger looks for its
    caller on the stack, and a rotating file looks for its own name on the disk.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        blank = logging.LogRecord(logger.name, logging.INFO, __file__, 0, "", None, None, "write")
        self._blank = blank.__dict__
        self._quiet_until = 0.0  # on the monotonic clock, for callers without a valid key

    def write(self, ended: Sequence[EndedRequest]) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        records = [self._record(*request) for request in ended if self._is_logged(request.trace)]
        for handler in logger.handlers:
            _handle(handler, records)

    def _is_logged(self, trace: RequestTrace) -> bool:
        """Tell whether the request gets a line.

        Refused callers without a name get one line a minute, or anyone could fill the log.
        """
        if not trace.is_from_stranger:
            return not trace.is_probe
        if trace.ended < self._quiet_until:
            return False
        self._quiet_until = trace.ended + _REFUSAL_EVERY_S
        return True

    def _record(self, trace: RequestTrace, context: Any) -> logging.LogRecord:
        ended_at = time.time() - trace.age
        fields: dict[str, object] = {
            "msg": _line(trace),
            "created": ended_at,
            "msecs": ended_at % 1 * 1000,
            private.TIMESTAMP_NS: int(ended_at * 1e9),
            private.REQUEST_ID: one_word(context.request_id),
        }
        if self._as_json:
            fields |= trace.fields()
            fields[private.ROUTE] = context.route
            fields[private.APPLICATION] = context.app_name
        # A copy takes a quarter of the time of a new record, which reads process and thread.
        record = logging.LogRecord.__new__(logging.LogRecord)
        record.__dict__ = {**self._blank, **fields}
        return record


def _handle(handler: logging.Handler, records: list[logging.LogRecord]) -> None:
    """Let `handler` handle the records; those for Serve's log file in one write."""
    if isinstance(handler, MemoryHandler) and isinstance(handler.target, RotatingFileHandler):
        handler.flush()  # the records before these
        records = [record for record in records if handler.filter(record)]
        handler = handler.target
        # A batch with a bad record is handled one by one: the handler reports the bad one.
        with suppress(Exception):
            _append(handler, records)
            return
    for record in records:
        handler.handle(record)


def _append(file: RotatingFileHandler, records: list[logging.LogRecord]) -> None:
    if not records:
        return
    lines = "".join([file.format(record) + file.terminator for record in records])
    file.acquire()
    try:
        if file.shouldRollover(records[-1]):
            file.doRollover()
        if file.stream:
            file.stream.write(lines)
            file.flush()
    finally:
        file.release()


def _line(trace: RequestTrace) -> str:
    ttft = "-" if trace.ttft is None else f"{1000 * trace.ttft:.0f}"
    tokens = "-" if trace.usage.generated is None else trace.usage.generated
    return (
        f"{trace.method} {one_word(trace.path)} {trace.status} {trace.outcome} "
        f"key={trace.caller.name or '-'} model={trace.model or '-'} ttft_ms={ttft} "
        f"ms={1000 * trace.seconds:.0f} tokens={tokens}{_remarks(trace)}"
    )


def _remarks(trace: RequestTrace) -> str:
    """Return the fields that few requests have: group, customer, limit, estimated tokens."""
    placed = trace.placed
    remarks = {
        "group": trace.caller.group,
        "priority": "" if trace.priority is Priority.STANDARD else trace.priority,
        "user": one_word(trace.user),
        "limit": trace.limit,
        "estimated": trace.estimated and "true",
        "uncounted": trace.is_uncounted and "true",
        "replica": placed and placed.replica,
        "predicted_ttft_ms": placed and f"{1000 * placed.predicted_s:.0f}",
        "predicted_cached": placed and placed.cached_tokens,
        "trace": trace.trace_id,
    }
    return "".join(f" {name}={value}" for name, value in remarks.items() if value)
