"""A live experiment's run, as the simulator takes it: requests, start-up times, samples."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from serve_app.capacity.results.cluster_samples import Sample, read_samples, replica_seconds
from serve_app.capacity.results.request_records import ClientOutcome, Record, RecordError, read_run
from serve_app.capacity.results.statistics import quantile
from serve_app.capacity.workload.requests import Request
from serve_app.errors import ServiceError


class ValidationError(ServiceError):
    """The folder holds nothing that can be replayed."""


@dataclass(frozen=True, slots=True)
class Live:
    """One live run. Its times count from `load_start`, when its load did (Unix seconds)."""

    records: tuple[Record, ...]
    samples: tuple[Sample, ...]
    load_start: float

    @property
    def begin_s(self) -> float:
        return self.samples[0].at - self.load_start

    @property
    def end_s(self) -> float:
        return self.samples[-1].at - self.load_start

    def ttft(self, q: float) -> float:
        return quantile([r.ttft for r in self.records if r.ok and r.ttft is not None], q)

    def replica_seconds(self, begin_s: float, end_s: float) -> float:
        within = [s for s in self.samples if begin_s <= s.at - self.load_start <= end_s]
        return replica_seconds(within)

    def running(self, at_s: float) -> int:
        """Replicas, by the last sample until then."""
        before = [sample for sample in self.samples if sample.at - self.load_start <= at_s]
        return (before or self.samples[:1])[-1].running

    def durations(self, state: Callable[[Sample], int]) -> list[float]:
        """How long replicas stayed in a state: those that left it, first in, first out.

        `state` counts those in it; a second's net change is taken for what happened in it.
        """
        waiting: list[float] = []
        found = []
        for before, after in pairwise(self.samples):
            change = state(after) - state(before)
            waiting.extend([after.at] * change)
            for _ in range(min(-change, len(waiting))):
                found.append(after.at - waiting.pop(0))
        return found

    def unhindered(self, slots: int) -> list[Record]:
        """Answers to requests that can't have waited: fewer than `slots` others were there."""
        there: list[float] = []  # when those in the service leave it
        found = []
        for record in self.records:
            while there and there[0] <= record.intended:
                heapq.heappop(there)
            if record.ok and len(there) < slots:
                found.append(record)
            heapq.heappush(there, record.ended or record.intended)
        return found

    def requests(self, begin_s: float) -> list[Request]:
        """What was asked, at seconds after `begin_s`; where no answer came, as it was asked."""
        return [
            _request(record, self.load_start + begin_s)
            for record in self.records
            if record.outcome is not ClientOutcome.CANCELLED
        ]


def read_live(folder: Path) -> Live:
    """Raises ValidationError."""
    try:
        run, records = read_run(folder)
        samples = read_samples(folder)
    except RecordError as exc:
        raise ValidationError(f"{folder} can't be replayed: {exc}") from exc
    if len(samples) < 2 or not records:
        raise ValidationError(f"{folder} can't be replayed: it has no samples or no requests")
    in_order = sorted(records, key=lambda record: record.intended)
    return Live(tuple(in_order), tuple(samples), run.began)


def _request(record: Record, begin: float) -> Request:
    return Request(
        at_s=record.intended - begin,
        prompt_tokens=record.prompt_tokens or record.asked_prompt_tokens or 1,
        output_tokens=record.output_tokens or record.asked_output_tokens or 1,
        session=record.session,
        turn=record.turn,
    )
