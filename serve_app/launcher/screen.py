"""Selects the lines of Ray's and Serve's output that `make run` prints."""

import re
from collections import deque
from threading import Event

_COLOUR = re.compile(r"\x1b\[\d+m")
_OF_A_REPLICA = re.compile(r"\(ServeReplica:[^:]*:(?P<deployment>\S+) pid=\d+\) (?P<text>.*)")
_RECORD = re.compile(
    r"(?P<level>[A-Z]+) \S+ (?P<time>[\d:]+),\d+ \S+ \S+ (?:\S+ )?-- (?P<message>.*)"
)
# Lines of Serve and gRPC in a replica.
_CHATTER = re.compile(
    r"Calling user-provided callback|Failed to start RequestProtocol|Started <ray\.|[IWE]\d{4} "
)
_HAS_FAILED = re.compile(
    r"\(ServeController .* ERROR .* -- (Failed to update the deployments|Deploying app .* failed)"
)
_LAST_LINES = 40


class Screen:
    """Passes the service's own log lines and remembers lines that explain a failure."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._level = ""
        self.engine_chosen = Event()
        self.has_failed = False
        self.warning = ""
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    def show(self, line: str) -> str | None:
        """Return the line to print, or None."""
        plain = _COLOUR.sub("", line.rstrip("\n"))
        self.last_lines.append(plain)
        self.has_failed = self.has_failed or bool(_HAS_FAILED.search(plain))
        shown = self._of_a_replica(plain)
        return plain if self._verbose else shown

    def _of_a_replica(self, line: str) -> str | None:
        if not (own := _OF_A_REPLICA.match(line)) or _CHATTER.match(own["text"]):
            return None
        if record := _RECORD.match(own["text"]):
            return self._record(own["deployment"], record)
        # Lines of a traceback, and records in JSON.
        return own["text"] if self._level == "ERROR" or own["text"].startswith("{") else None

    def _record(self, deployment: str, record: re.Match[str]) -> str | None:
        self._level, message = record["level"], record["message"]
        if _CHATTER.match(message):
            return None
        if message.startswith("chosen: "):
            self.engine_chosen.set()
        if self._level != "INFO":
            self.warning = message
            message = f"{self._level.lower()}: {message}"
        return f"{record['time']} {deployment}: {message}"
