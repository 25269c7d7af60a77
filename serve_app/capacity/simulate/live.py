"""A run of a live experiment as input of a simulation: requests, start-up times, samples."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from serve_app.capacity.results.cluster_samples import Sample, read_samples, replica_seconds
from serve_app.capacity.results.request_records import ClientOutcome, Record, RecordError, read_run
from serve_app.capacity.results.statistics import quantile
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.errors import ServiceError


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

    def durations(self, state: Callable[[Sample], int]) -> list[float]:
        """Return the times that replicas spent in a state that they have left, first in, first out.

        `state` counts the replicas in it. The net change of a second counts as all its changes.
        """
        waiting: list[float] = []
        durations = []
        for before, after in pairwise(self.samples):
            change = state(after) - state(before)
            waiting.extend([after.at] * change)
            for _ in range(min(-change, len(waiting))):
                durations.append(after.at - waiting.pop(0))
        return durations

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
