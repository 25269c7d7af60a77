"""The records of all processes, written to one folder.

    Reporter       in a process with users: buffers records and measures CPU time
    RecordWriter   in the master or the single process: writes `run.json` and `requests.jsonl`

Reporters send their records every second and when the test stops: by a call in a single process, by
Locust's messages from a worker to the master.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve_app.capacity.clients.client_request import UnixClock
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
    """Reports of one process. `running` counts unfinished requests and schedules."""

    def __init__(self, worker: str, clock: UnixClock, send: Callable[[Report], None]) -> None:
        self._worker = worker
        self._clock = clock
        self._send = send
        self._lines: list[str] = []
        self._start = clock()
        self._busy = time.process_time()
        self.running = 0

    def note(self, record: Record) -> None:
        self._lines.append(record.line().decode())

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        seconds = max(1e-9, self._clock() - self._start)
        share = (time.process_time() - self._busy) / seconds
        report = {"worker": self._worker, "lines": lines, "running": self.running}
        self._send({**report, "began": self._start, "cpu_share": share})


@dataclass(slots=True)
class RecordWriter:
    """Writes the records of a run. If `folder` holds a run, a number is appended to its name."""

    folder: Path
    run: Run
    closed: bool = False
    reports: dict[str, Report] = field(default_factory=dict)  # the last one of each process

    def __post_init__(self) -> None:
        self.folder = _unused(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / REQUESTS).touch()

    @property
    def idle(self) -> bool:
        """Whether all processes report that nothing is running."""
        return bool(self.reports) and not any(last["running"] for last in self.reports.values())

    def take(self, report: Report) -> None:
        lines = report.pop("lines")
        with (self.folder / REQUESTS).open("a") as file:
            file.writelines(lines)
        if not self.closed:
            self.reports[report["worker"]] = report
        elif lines:
            self.close()  # include late records

    def close(self) -> Run:
        """Write the run, from the first start to the last end, with reasons if it is invalid."""
        self.closed = True
        with (self.folder / REQUESTS).open("rb") as lines:
            records = list(read_records(lines))
        last = self.reports.values()
        start = min((report["began"] for report in last), default=self.run.began)
        ended = max((record.ended or record.intended for record in records), default=self.run.ended)
        share = max((report["cpu_share"] for report in last), default=None)
        self.run = judged(replace(self.run, began=start, ended=ended, cpu_share=share), records)
        write_run(self.folder, self.run)
        return self.run


def _unused(folder: Path) -> Path:
    number, unused = 1, folder
    while holds_run(unused):
        number += 1
        unused = folder.with_name(f"{folder.name}-{number}")
    return unused
