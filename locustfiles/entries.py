"""Entries in Locust's tables and charts.

A request is an event, so that charts and totals count requests. Its times are entries outside the
totals: TTFT, gaps between tokens, E2E, tokens/s and goodput.
"""

from locust.env import Environment

from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.results.slo import Slo


class Failed(Exception):
    """A failed request: its outcome and error message."""


class Entries:
    """Logs the records of this process. Times count from the intended start."""

    def __init__(self, environment: Environment, path: str, slo: Slo) -> None:
        self._environment = environment
        self._path = path
        self._slo = slo

    def log(self, record: Record) -> None:
        if record.outcome is ClientOutcome.CANCELLED:
            return
        self._request(record)
        if record.ok:
            self._times(record)

    def _request(self, record: Record) -> None:
        words = f"{record.outcome} {record.status or ''} {record.error}"
        self._environment.events.request.fire(
            request_type="POST",
            name=self._path,
            response_time=1000 * (record.e2e or 0),
            response_length=record.output_tokens or 0,
            exception=None if record.ok else Failed(" ".join(words.split())),
            context={},
        )

    def _times(self, record: Record) -> None:
        seconds = {"TTFT": record.ttft, "E2E": record.e2e, "TPOT": record.tpot}
        for name, value in seconds.items():
            if value is not None:
                self._entry(name, 1000 * value)
        for gap in record.gaps:
            self._entry("gap between tokens", 1000 * gap)
        if record.tpot:
            self._entry("tokens/s (not ms)", 1 / record.tpot)
        if self._slo.met_by(record):
            self._entry("goodput: met the SLO", 1000 * (record.e2e or 0))

    def _entry(self, kind: str, value: float) -> None:
        # Not by an event, which would count tokens as requests in the totals.
        self._environment.stats.get(self._path, kind).log(value, 0)
