"""Convert k6's own files into the records and the run that every analysis reads."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from serve_app.capacity.clients.k6.schedule import Matched, head_start, match, schedule
from serve_app.capacity.results.request_records import (
    REQUESTS,
    ClientOutcome,
    Record,
    RecordError,
    Run,
    read_records,
    write_run,
)
from serve_app.capacity.results.validity import judged
from serve_app.capacity.workload.shapes import Shape

LINES, SUMMARY = "k6.jsonl", "k6-summary.json"


def convert(folder: Path, command: str = "", cpu_share: float | None = None) -> Run:
    """Write `run.json` and `requests.jsonl` beside k6's own files. Raises RecordError."""
    summary = _summary(folder / SUMMARY)
    start, sent = _sent(folder / LINES)
    records = list(_all(start, sent, summary))
    run = Run(
        tool="k6",
        base_url=summary["base_url"],
        began=start,
        ended=max((r.ended for r in records if r.ended), default=summary["ended"]),
        options={**summary["options"], "script": summary["script"], "points": summary["points"]},
        command=command,
        cpu_share=cpu_share,
        dropped=summary["dropped"],
        max_virtual_users=summary["max_virtual_users"],
        timeout_s=summary["timeout_s"],
    )
    run = judged(run, records)
    (folder / REQUESTS).unlink(missing_ok=True)
    write_run(folder, run, records)
    return run


def _summary(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise RecordError(f"k6 left no summary in {path}: {exc}") from exc


def _sent(path: Path) -> tuple[float, list[Record]]:
    """Read the start of the scenario, and the requests that were sent, in order of their start."""
    lines = [line for line in path.read_bytes().splitlines() if line.startswith(b"{")]
    if not lines:
        raise RecordError(f"k6 sent no request: {path} is empty")
    start = float(orjson.loads(lines[0])["scenario_start"])
    return start, sorted(read_records(lines), key=lambda record: record.intended)


def _all(start: float, sent: list[Record], summary: Any) -> Iterator[Record]:
    """Yield all records with the intended starts of the schedule, also of unsent requests."""
    shape = Shape(tuple((at, rate) for at, rate in summary["points"]))
    due = schedule(shape, summary["ended"] - start)
    starts = [record.intended - start for record in sent]
    zero = start + head_start(due, starts)
    matched = match(due, [record.intended - zero for record in sent])
    for record, at in zip(sent, matched.intended, strict=True):
        yield replace(record, intended=zero + at)
    yield from _never_sent(zero, matched, summary["dropped"], shape.seconds)


def _never_sent(zero: float, matched: Matched, dropped: int, seconds: float) -> Iterator[Record]:
    """Yield unsent requests: k6 dropped the first `dropped`, and its end cancelled the others."""
    missing = matched.missing
    if len(missing) > dropped and missing[-1] > seconds - 0.01:
        missing = missing[:-1]  # due at the very end, within rounding
    for number, at in enumerate(missing):
        outcome = ClientOutcome.DROPPED if number < dropped else ClientOutcome.CANCELLED
        yield Record(zero + at, outcome)
