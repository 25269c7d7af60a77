"""A run of a live experiment as input of a simulation: requests, start-up times, samples."""

import heapq
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from serve_app.capacity.results.cluster_samples import Sample, read_samples, replica_seconds
from serve_app.capacity.results.request_records import ClientOutcome, Record, RecordError, read_run
from serve_app.capacity.results.statistics import quantile
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.errors import ServiceError

# Requests of the last two seconds tell whether all wait: their first token comes a second late.
_RECENT_S, _WAITED_S = 2.0, 1.0


class ValidationError(ServiceError):
    """A folder that can't be replayed."""


@dataclass(frozen=True, slots=True)
class Live:
    """One live run. Its times count from `load_start` (Unix seconds)."""

    records: tuple[Record, ...]
    samples: tuple[Sample, ...]
    load_start: float

    @property
    def begin_s(self) -> float:
        return self.samples[0].at - self.load_start

    @property
    def end_s(self) -> float:
        return self.samples[-1].at - self.load_start

    @property
    def target_at_load(self) -> int:
        """The target when the load began; polls of readiness may have raised it before."""
        before = [sample for sample in self.samples if sample.at <= self.load_start]
        return (before or self.samples[:1])[-1].target

    def ttft(self, q: float) -> float:
        return quantile([r.ttft for r in self.records if r.ok and r.ttft is not None], q)

    def replica_seconds(self, begin_s: float, end_s: float) -> float:
        within = [s for s in self.samples if begin_s <= s.at - self.load_start <= end_s]
        return replica_seconds(within)

    def running(self, at_s: float) -> int:
        """Return the running replicas by the last sample until `at_s`."""
        before = [sample for sample in self.samples if sample.at - self.load_start <= at_s]
        return (before or self.samples[:1])[-1].running

    def start_times(self) -> list[float]:
        """Return the seconds from each replica's start until it ran, in the order of the starts."""
        begun: deque[float] = deque()
        durations = []
        for before, after in pairwise(self.samples):
            change = _Change.between(before, after)
            begun.extend([after.at] * change.begun)
            durations += _ages(begun, after.at, change.started)
            for _ in range(min(change.cancelled, len(begun))):
                begun.pop()  # Serve stops the newest first
        return durations

    def drain_times(self) -> list[float]:
        """Return the seconds that replicas drained, first in, first out."""
        stopped: deque[float] = deque()
        durations = []
        for before, after in pairwise(self.samples):
            change = _Change.between(before, after)
            stopped.extend([after.at] * change.stopped)
            durations += _ages(stopped, after.at, change.gone)
        return durations

    def join_time(self) -> float | None:
        """Return the seconds from the first replica that relieves the others to its first request.

        None where requests did not all wait when it ran.
        """
        for before, after in pairwise(self.samples):
            if after.running > before.running and self._all_wait_before(after.at):
                served = (r for r in self.records if r.intended >= after.at and not _waited(r))
                return next((record.intended - after.at for record in served), None)
        return None

    def _all_wait_before(self, at: float) -> bool:
        recent = [r for r in self.records if at - _RECENT_S <= r.intended < at]
        return bool(recent) and all(map(_waited, recent))

    def unhindered(self, slots: int) -> list[Record]:
        """Return answers to requests that did not wait, because fewer than `slots` others ran."""
        departures: list[float] = []  # of the requests in the service
        answers = []
        for record in self.records:
            while departures and departures[0] <= record.intended:
                heapq.heappop(departures)
            if record.ok and len(departures) < slots:
                answers.append(record)
            heapq.heappush(departures, record.ended or record.intended)
        return answers

    def requests(self, begin_s: float) -> list[WorkloadRequest]:
        """Return the requests from `begin_s` on with measured, else requested, lengths."""
        return [
            _request(record, self.load_start + begin_s)
            for record in self.records
            if record.outcome is not ClientOutcome.CANCELLED
        ]


@dataclass(frozen=True, slots=True)
class _Change:
    """Replicas that changed their state between two samples; the fewest that explain them."""

    begun: int
    started: int
    cancelled: int
    stopped: int
    gone: int

    @classmethod
    def between(cls, before: Sample, after: Sample) -> Self:
        running = after.running - before.running
        started = max(0, running)
        # A start that begins and one that ends in the same second leave the count as it was.
        starting = after.starting - before.starting + started
        cancelled = max(0, -starting)
        stopped = max(0, -running) + cancelled
        gone = stopped - (after.draining - before.draining)
        stopped += max(0, -gone)
        return cls(max(0, starting), started, cancelled, stopped, max(0, gone))


def _waited(record: Record) -> bool:
    return record.ttft is None or record.ttft > _WAITED_S


def _ages(since: deque[float], now: float, count: int) -> list[float]:
    """Take the `count` oldest moments and return the seconds since each."""
    return [now - since.popleft() for _ in range(min(count, len(since)))]


def read_live(folder: Path) -> Live:
    """Read one run. Raises ValidationError."""
    try:
        run, records = read_run(folder)
        samples = read_samples(folder)
    except RecordError as exc:
        raise ValidationError(f"{folder} can't be replayed: {exc}") from exc
    if len(samples) < 2 or not records:
        raise ValidationError(f"{folder} can't be replayed: it has no samples or no requests")
    in_order = sorted(records, key=lambda record: record.intended)
    return Live(tuple(in_order), tuple(samples), run.began)


def _request(record: Record, begin: float) -> WorkloadRequest:
    return WorkloadRequest(
        at_s=record.intended - begin,
        prompt_tokens=record.prompt_tokens or record.asked_prompt_tokens or 1,
        output_tokens=record.output_tokens or record.asked_output_tokens or 1,
        session=record.session,
        turn=record.turn,
    )
