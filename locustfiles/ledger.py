"""One record per request, of every process, in one folder.

    Reporter   in each process with users: keeps lines, and how the process fares
    Ledger     in the master, or in the only process: writes `run.json` and `requests.jsonl`

Once a second, and when the test stops, each reporter sends what it has: by a call in the only
process, by Locust's own messages from a worker to the master.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve_app.capacity.clients.client_request import Clock
from serve_app.capacity.results.request_records import (
    REQUESTS,
    Record,
    Run,
    read_records,
    write_run,
)
from serve_app.capacity.results.run_folder import holds_run
from serve_app.capacity.results.validity import judged

Report = dict[str, Any]  # worker, lines, began, cpu_share, running


class Reporter:
    """Of one process. `running`: what is not over yet, requests and schedules."""

    def __init__(self, worker: str, clock: Clock, send: Callable[[Report], None]) -> None:
        self._worker = worker
        self._clock = clock
        self._send = send
        self._lines: list[str] = []
        self._began = clock()
        self._busy = time.process_time()
        self.running = 0

    def note(self, record: Record) -> None:
        self._lines.append(record.line().decode())

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        seconds = max(1e-9, self._clock() - self._began)
        share = (time.process_time() - self._busy) / seconds
        report = {"worker": self._worker, "lines": lines, "running": self.running}
        self._send({**report, "began": self._began, "cpu_share": share})


@dataclass(slots=True)
class Ledger:
    """`run` says what is known before the end; a folder that is in use gets a number behind it."""

    folder: Path
    run: Run
    closed: bool = False
    reports: dict[str, Report] = field(default_factory=dict)  # the last of each process

    def __post_init__(self) -> None:
        self.folder = _unused(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / REQUESTS).touch()

    @property
    def idle(self) -> bool:
        """Whether every process has said that nothing is running."""
        return bool(self.reports) and not any(last["running"] for last in self.reports.values())

    def take(self, report: Report) -> None:
        lines = report.pop("lines")
        with (self.folder / REQUESTS).open("a") as file:
            file.writelines(lines)
        if not self.closed:
            self.reports[report["worker"]] = report
        elif lines:
            self.close()  # what came late belongs to it as well

    def close(self) -> Run:
        """Write the run, from the first schedule's beginning to the last answer's end, judged."""
        self.closed = True
        with (self.folder / REQUESTS).open("rb") as lines:
            records = list(read_records(lines))
        last = self.reports.values()
        began = min((each["began"] for each in last), default=self.run.began)
        ended = max((each.ended or each.intended for each in records), default=self.run.ended)
        share = max((each["cpu_share"] for each in last), default=None)
        self.run = judged(replace(self.run, began=began, ended=ended, cpu_share=share), records)
        write_run(self.folder, self.run)
        return self.run


def _unused(folder: Path) -> Path:
    number, found = 1, folder
    while holds_run(found):
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found
