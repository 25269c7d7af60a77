"""Steps of load on one replica, and the limits that they show. Pure functions.

A step is a constant level of load: users, or arrivals per second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from serve_app.capacity.results.request_records import Record
from serve_app.capacity.results.slo import BoundResult, Slo, Verdict
from serve_app.capacity.results.statistics import between, quantile

# Growth of the throughput below which more load only adds waiting.
_MIN_GROWTH = 0.05
# An open step with a larger share of unanswered arrivals has a growing queue.
_MAX_LEFT = 0.05


class StepKind(StrEnum):
    CONCURRENCY = "concurrency"  # users: each waits for the answer, then sends again
    RATE = "rate"  # arrivals per second, independent of the service


@dataclass(frozen=True, slots=True)
class SweepStep:
    """One step. `records` are intended in [begin, end), Unix seconds, after the warm-up.

    `run` holds all records of the load test, to count answers that ended within the step.
    `invalid`: reasons why the figures must not be used.
    """

    kind: StepKind
    level: float
    begin: float
    end: float
    records: Sequence[Record]
    run: Sequence[Record]
    invalid: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def offered_per_s(self) -> float:
        return len(self.records) / self.seconds

    @property
    def completed_per_s(self) -> float:
        """Complete answers per second that ended within the step."""
        return sum(map(self._ended_within, self.run)) / self.seconds

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens per second, with the tokens of an answer spread evenly over its time."""
        return sum(map(self._tokens_within, self.run)) / self.seconds

    @property
    def ongoing(self) -> float:
        """Mean number of requests in the service, waiting or served (Little's law)."""
        return sum(r.e2e for r in self.records if r.ok and r.e2e is not None) / self.seconds

    @property
    def e2e_s(self) -> float:
        """Mean time of answers from intended start to last byte."""
        served = [r.e2e for r in self.records if r.ok and r.e2e is not None]
        return sum(served) / len(served) if served else math.nan

    def quantile(self, quantity: str, q: float) -> float:
        """Return a quantile of ttft, tpot or e2e."""
        values = (getattr(record, quantity) for record in self.records if record.ok)
        return quantile([value for value in values if value is not None], q)

    def _ended_within(self, record: Record) -> bool:
        return record.ok and record.ended is not None and self.begin <= record.ended < self.end

    def _tokens_within(self, record: Record) -> float:
        if not (record.ok and record.first and record.ended and record.output_tokens):
            return 0.0
        length = record.ended - record.first
        inside = min(record.ended, self.end) - max(record.first, self.begin)
        if length <= 0:
            return record.output_tokens if inside >= 0 else 0.0
        return record.output_tokens * max(0.0, inside) / length


def step_of(
    kind: StepKind,
    level: float,
    records: Sequence[Record],
    begin: float,
    end: float,
    invalid: tuple[str, ...] = (),
) -> SweepStep:
    """Make a step of the records that were intended within it."""
    return SweepStep(kind, level, begin, end, between(records, begin, end), records, invalid)


def split_into_steps(
    records: Sequence[Record], window_s: float, invalid: tuple[str, ...] = ()
) -> list[SweepStep]:
    """Split a run into steps of arrival rate of `window_s` seconds; drop a shorter rest."""
    if not records:
        return []
    begin = min(record.intended for record in records)
    last = max(record.intended for record in records)
    edges = [begin + i * window_s for i in range(int((last - begin) / window_s) + 1)]
    steps = [
        step_of(StepKind.RATE, 0.0, records, edge, edge + window_s, invalid)
        for edge in edges
        if edge + window_s <= last
    ]
    return [replace(step, level=step.offered_per_s) for step in steps]


def saturation(steps: Sequence[SweepStep]) -> SweepStep | None:
    """Return the first step at which more load gave no more throughput; None without one.

    Users: tokens/s grew by less than 5 % over the best lower level. Arrivals: more than 5 % were
    unanswered at the end of the step, and more than by chance.
    """
    # Users first, because arrivals are random.
    for step in sorted(steps, key=lambda step: (step.kind, step.level)):
        if _falls_behind(step) if step.kind is StepKind.RATE else _flat(step, steps):
            return step
    return None


def _falls_behind(step: SweepStep) -> bool:
    arrived = len(step.records)
    left = arrived - step.completed_per_s * step.seconds
    # The square root is the standard deviation of a Poisson process.
    return left > max(_MAX_LEFT * arrived, math.sqrt(arrived))


def _flat(step: SweepStep, steps: Sequence[SweepStep]) -> bool:
    below = [s.tokens_per_s for s in steps if s.kind is step.kind and s.level < step.level]
    return bool(below) and step.tokens_per_s < (1 + _MIN_GROWTH) * max(below)


def knee(steps: Sequence[SweepStep]) -> SweepStep | None:
    """Return the knee of the curve of throughput over users; None without three steps.

    It is the point farthest above the chord (Satopaa et al., Kneedle, 2011).
    """
    users = sorted((s for s in steps if s.kind is StepKind.CONCURRENCY), key=lambda s: s.level)
    if len(users) < 3:
        return None
    low, high = users[0], max(users, key=lambda s: s.tokens_per_s)
    levels, rates = high.level - low.level, high.tokens_per_s - low.tokens_per_s
    if levels <= 0 or rates <= 0:
        return low

    def above_the_chord(step: SweepStep) -> float:
        return (step.tokens_per_s - low.tokens_per_s) / rates - (step.level - low.level) / levels

    return max((s for s in users if s.level <= high.level), key=above_the_chord)


def largest(steps: Sequence[SweepStep], slo: Slo) -> SweepStep | None:
    """Return the highest arrival rate that met every bound, below the first that missed one."""
    best = None
    for step in sorted((s for s in steps if s.kind is StepKind.RATE), key=lambda s: s.level):
        verdicts = {finding.verdict for finding in slo.judge(step.records)}
        if Verdict.MISSED in verdicts or _falls_behind(step):
            break
        if verdicts <= {Verdict.MET}:
            best = step
    return best


def unjudged(steps: Sequence[SweepStep], slo: Slo) -> list[BoundResult]:
    """Return the bounds for which a step had too few requests, with the first such result."""
    results: dict[str, BoundResult] = {}
    for step in steps:
        for finding in slo.judge(step.records):
            if finding.verdict is Verdict.TOO_FEW:
                results.setdefault(finding.bound.name, finding)
    return list(results.values())
