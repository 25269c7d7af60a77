"""The request log: one line for each exchange, through the handlers of Serve's logger."""

import asyncio
import logging
import time
from contextvars import Context
from logging.handlers import MemoryHandler, RotatingFileHandler

from ray._private.log import INTERNAL_TIMESTAMP_LOG_KEY
from ray.serve._private.constants import SERVE_LOG_REQUEST_ID, SERVE_LOGGER_NAME

from serve_app.api.exchange import Exchange

_EVERY_S = 0.1

logger = logging.getLogger("ray.serve.llm")
_serve_logger = logging.getLogger(SERVE_LOGGER_NAME)


def spare_access_records() -> None:
    """Have Serve's own INFO unsaid in this process: it makes a record of each request before it
    finds that nobody wants it. Ours goes on: through a child of its logger, to the same handlers.
    """
    if _serve_logger.level == logging.INFO:
        logger.setLevel(logging.INFO)
        _serve_logger.setLevel(logging.WARNING)


class RequestLog:
    """Writes the lines of each tenth of a second together.

    A record that goes its usual way takes as long as a stream's head: its maker looks for its
    caller on the stack, and a rotating file looks for its own name on the disk.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._waiting: list[Exchange] = []

    def add(self, exchange: Exchange) -> None:
        """For an exchange that has ended."""
        if not self._waiting:
            # Not in the caller's context: Serve would write its id into every line.
            asyncio.get_running_loop().call_later(_EVERY_S, self.write, context=Context())
        self._waiting.append(exchange)

    def write(self) -> None:
        exchanges, self._waiting = self._waiting, []
        if not logger.isEnabledFor(logging.INFO):
            return
        records = [self._record(exchange) for exchange in exchanges]
        for handler in _serve_logger.handlers:
            _handle(handler, records)

    def _record(self, exchange: Exchange) -> logging.LogRecord:
        record = logging.LogRecord(
            logger.name, logging.INFO, __file__, 0, _line(exchange), None, None, "write"
        )
        ended = time.time() - exchange.age
        record.created, record.msecs = ended, ended % 1 * 1000
        record.__dict__[INTERNAL_TIMESTAMP_LOG_KEY] = int(ended * 1e9)
        record.__dict__[SERVE_LOG_REQUEST_ID] = exchange.request_id
        if self._as_json:
            record.__dict__ |= exchange.fields()
        return record


def _handle(handler: logging.Handler, records: list[logging.LogRecord]) -> None:
    """What `handler.handle` does with each; to Serve's log file in one write."""
    if isinstance(handler, MemoryHandler) and isinstance(handler.target, RotatingFileHandler):
        handler.flush()  # what was said before
        _append(handler.target, [record for record in records if handler.filter(record)])
    else:
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


def _line(exchange: Exchange) -> str:
    ttft = "-" if exchange.ttft is None else f"{1000 * exchange.ttft:.0f}"
    tokens = "-" if exchange.usage.generated is None else exchange.usage.generated
    return (
        f"{exchange.method} {exchange.printable_path} {exchange.status} {exchange.outcome} "
        f"key={exchange.key_name or '-'} model={exchange.model or '-'} ttft_ms={ttft} "
        f"ms={1000 * exchange.seconds:.0f} tokens={tokens}"
    )
