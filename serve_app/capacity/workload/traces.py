"""Recorded requests, read line by line from the formats of two public data sets.

    Azure (CSV)         TIMESTAMP,ContextTokens,GeneratedTokens
    Mooncake (JSONL)    timestamp (ms), input_length, output_length, hash_ids (blocks of 512 tokens)

https://github.com/Azure/AzurePublicDataset, https://github.com/kvcache-ai/Mooncake
"""

import csv
import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TextIO

import orjson

from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.capacity.workload.text import WorkloadError

_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
# With a rate above 1, copies of a request arrive within this time after it.
_MAX_COPY_DELAY_S = 5.0


@dataclass(frozen=True, slots=True)
class Trace:
    """A file of recorded requests. Can be iterated again; raises WorkloadError.

    `speed` shortens the gaps: 2 replays an hour in half an hour. `rate` is the average number of
    copies of a request: 0.1 leaves out nine of ten, 3 adds two with the same lengths within
    seconds, as separate sessions.
    """

    path: Path
    speed: float = 1.0
    rate: float = 1.0
    seed: int = 0

    def __iter__(self) -> Iterator[WorkloadRequest]:
        requests = read(self.path)
        if self.speed != 1:
            requests = (replace(r, at_s=r.at_s / self.speed) for r in requests)
        if self.rate != 1:
            requests = repeated(requests, self.rate, random.Random(self.seed))
        return requests


def read(path: Path) -> Iterator[WorkloadRequest]:
    """Yield the requests of a file in either format, the first at 0 s. Raises WorkloadError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _mooncake(file) if file.read(1) == "{" else _azure(file)
            yield from _from_zero(rows, path)
    except OSError as exc:
        raise WorkloadError(f"{path} can't be read: {exc.strerror}") from exc


def repeated(
    requests: Iterable[WorkloadRequest], rate: float, rng: random.Random
) -> Iterator[WorkloadRequest]:
    """Yield each request `rate` times on average, in order of time."""
    waiting: list[tuple[float, int, WorkloadRequest]] = []
    ties = count()
    for request in requests:
        while waiting and waiting[0][0] <= request.at_s:
            yield heapq.heappop(waiting)[2]
        for copy in range(int(rate) + (rng.random() < rate % 1)):
            copied = _copy(request, copy, rng)
            heapq.heappush(waiting, (copied.at_s, next(ties), copied))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _copy(request: WorkloadRequest, number: int, rng: random.Random) -> WorkloadRequest:
    if not number:
        return request
    return replace(
        request,
        at_s=request.at_s + rng.uniform(0, _MAX_COPY_DELAY_S),
        session=f"{request.session}+{number}" if request.session else "",
        blocks=tuple((number << 40) + block for block in request.blocks),
    )


def _from_zero(rows: Iterator[WorkloadRequest], path: Path) -> Iterator[WorkloadRequest]:
    begin = last = None
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            begin = row.at_s if begin is None else begin
            if last is not None and row.at_s < last:
                raise WorkloadError(f"{path}: request {number} is earlier than the one before")
            last = row.at_s
            yield replace(row, at_s=row.at_s - begin)
    except (KeyError, TypeError, ValueError) as exc:
        raise WorkloadError(f"{path}: request {number + 1} can't be read: {exc}") from exc


def _azure(file: TextIO) -> Iterator[WorkloadRequest]:
    file.seek(0)
    rows = csv.reader(file)
    if next(rows, []) != _COLUMNS:
        raise ValueError(f"the first line is neither {','.join(_COLUMNS)} nor JSON")
    for when, prompt, output in rows:
        # Seven digits of a second, which datetime can't read
        whole, _, part = when.partition(".")
        at_s = datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{part or 0}")
        yield WorkloadRequest(at_s, max(1, int(prompt)), max(1, int(output)))


def _mooncake(file: TextIO) -> Iterator[WorkloadRequest]:
    file.seek(0)
    for line in file:
        row = orjson.loads(line)
        prompt, output = max(1, row["input_length"]), max(1, row["output_length"])
        yield WorkloadRequest(
            row["timestamp"] / 1000, prompt, output, blocks=tuple(row["hash_ids"])
        )
