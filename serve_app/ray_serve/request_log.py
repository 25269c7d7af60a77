"""The request log: one line for each trace, through the handlers of Serve's logger."""

import logging
import time
from collections.abc import Sequence
from logging.handlers import MemoryHandler, RotatingFileHandler
from typing import Any, NamedTuple, Self

from serve_app.api.request_trace import RequestTrace, printable
from serve_app.ray_serve import private

logger = logging.getLogger(private.SERVE_LOGGER)


def spare_access_records() -> None:
    """Serve's replica makes a record of each request before it finds that nobody wants it: as
    costly as relaying a token. What else it says of itself at INFO, once it runs, is unsaid too.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        own = logging.getLogger(f"{private.SERVE_LOGGER}.replica")
        own.setLevel(logging.WARNING)
        private.set_replica_logger(own)


class Ended(NamedTuple):
    """An trace that has ended, and what Serve knows of the request."""

    trace: RequestTrace
    served: Any

    @classmethod
    def now(cls, trace: RequestTrace) -> Self:
        return cls(trace, private.request_context())


class RequestLog:
    """Writes the lines of several traces together.

    A record that goes its usual way takes as long as a stream's head: its maker looks for its
    caller on the stack, and a rotating file looks for its own name on the disk.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def write(self, ended: Sequence[Ended]) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        records = [self._record(*each) for each in ended if not each.trace.is_probe]
        for handler in logger.handlers:
            _handle(handler, records)

    def _record(self, trace: RequestTrace, served: Any) -> logging.LogRecord:
        record = logging.LogRecord(
            logger.name, logging.INFO, __file__, 0, _line(trace), None, None, "write"
        )
        ended = time.time() - trace.age
        record.created, record.msecs = ended, ended % 1 * 1000
        fields: dict[str, object] = {
            private.TIMESTAMP_NS: int(ended * 1e9),
            private.REQUEST_ID: printable(served.request_id),
        }
        if self._as_json:
            fields |= trace.fields()
            fields[private.ROUTE] = served.route
            fields[private.APPLICATION] = served.app_name
        record.__dict__ |= fields
        return record


def _handle(handler: logging.Handler, records: list[logging.LogRecord]) -> None:
    """What `handler.handle` does with each; to Serve's log file in one write."""
    if isinstance(handler, MemoryHandler) and isinstance(handler.target, RotatingFileHandler):
        handler.flush()  # what was said before
        records = [record for record in records if handler.filter(record)]
        handler = handler.target
        try:
            return _append(handler, records)
        except Exception:
            pass  # one by one: each says on its own what is wrong with it
    for record in records:
        handler.handle(record)
    return None


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
        f"{trace.method} {printable(trace.path)} {trace.status} {trace.outcome} "
        f"key={trace.key_name or '-'} model={trace.model or '-'} ttft_ms={ttft} "
        f"ms={1000 * trace.seconds:.0f} tokens={tokens}"
    )
