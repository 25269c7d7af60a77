"""What a sweep found out of one replica, kept as a folder.

sweep.json            what was asked, and of each step where it lies
slots-4/03-rate-12/   a step: `run.json` and `requests.jsonl`, as of any load test
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import orjson

from serve_app.capacity.results.records import RecordError, read_run
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.model import Fit, FitError, fit, streams
from serve_app.capacity.sweep.queueing import mgc_wait
from serve_app.capacity.sweep.steps import Kind, Step, cut, knee, largest, saturation, step_of
from serve_app.errors import ServiceError

SWEEP = "sweep.json"


class SweepError(ServiceError):
    """A folder that holds no sweep, or a service that can't be swept."""


@dataclass(frozen=True)
class Measured:
    """Steps of load on one replica with so many parallel slots; None where nobody knows."""

    slots: int | None
    steps: tuple[Step, ...]

    @property
    def invalid(self) -> list[str]:
        """Why some steps' generator must not be trusted."""
        return [
            f"{step.kind} {step.level:g}: {reason}"
            for step in self.steps
            for reason in step.invalid
        ]

    def saturation(self) -> Step | None:
        return saturation(self.steps)

    def knee(self) -> Step | None:
        return knee(self.steps)

    def largest(self, slo: Slo) -> Step | None:
        return largest(self.steps, slo)

    def best_tokens_per_s(self) -> float:
        return max((step.tokens_per_s for step in self.steps), default=0.0)

    def fit(self) -> Fit:
        """From steps that no queue has muddled: not above the slots. Raises FitError."""
        if not self.steps:
            raise FitError("there are no steps")
        inside = [
            step.records
            for step in self.steps
            if self.slots is None or step.kind is Kind.RATE or step.level <= self.slots
        ]
        return fit(inside or [step.records for step in self.steps])

    def wait(self, step: Step) -> "Wait | None":
        """For a slot at a rate, as it was and as theory has it; None without the slots or a model.

        Service times follow from the fitted model at the concurrency that the step's answers saw.
        """
        if not self.slots or not step.records:
            return None
        model, at_once = self.fit().model, streams(step.records)
        before = model.overhead_s + model.token_s(at_once)
        times, seen = [], []
        for record in step.records:
            if record.ok and record.prompt_tokens and record.output_tokens and record.ttft:
                prompt, output = record.prompt_tokens, record.output_tokens
                times.append(model.service_s(prompt, output, at_once))
                seen.append(record.ttft - before - model.prefill_s(prompt))
        if len(times) < 2:
            return None
        mean = fmean(times)
        expected = mgc_wait(self.slots, step.offered_per_s, mean, stdev(times) / mean)
        return Wait(max(0.0, fmean(seen)), expected)


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds, on average: as seen, and by Allen and Cunneen's formula for M/G/c."""

    seen: float
    expected: float


@dataclass(frozen=True)
class Sweep:
    """`service` and `load` are what an experiment's scenario calls so."""

    measured: tuple[Measured, ...]
    slo: Slo
    service: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, sweep: Sweep, places: Sequence[Sequence[str]]) -> None:
    """`places`: of each measurement's steps, their folders within `folder`."""
    value = {
        "slo": str(sweep.slo),
        "service": sweep.service,
        "load": sweep.load,
        "measured": [
            {
                "slots": each.slots,
                "steps": [
                    {"kind": s.kind, "level": s.level, "begin": s.begin, "end": s.end, "at": at}
                    for s, at in zip(each.steps, where, strict=True)
                ],
            }
            for each, where in zip(sweep.measured, places, strict=True)
        ],
    }
    (folder / SWEEP).write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def read(folder: Path) -> Sweep:
    """Raises SweepError."""
    try:
        value = orjson.loads((folder / SWEEP).read_bytes())
        return Sweep(
            tuple(_measured(folder, each) for each in value["measured"]),
            Slo.parse(value["slo"]),
            value["service"],
            value["load"],
        )
    except (OSError, RecordError, KeyError, TypeError, ValueError) as exc:
        raise SweepError(f"{folder} holds no sweep: {exc}") from exc


def read_runs(folders: Iterable[Path], slots: int | None, window_s: float) -> Measured:
    """Any load tests of one replica as steps of arrival rate. Raises RecordError."""
    steps: list[Step] = []
    for folder in folders:
        run, records = read_run(folder)
        steps += cut(records, window_s, run.invalid)
    return Measured(slots, tuple(steps))


def _measured(folder: Path, value: dict[str, Any]) -> Measured:
    return Measured(value["slots"], tuple(_step(folder, each) for each in value["steps"]))


def _step(folder: Path, value: dict[str, Any]) -> Step:
    run, records = read_run(folder / value["at"])
    begin, end = value["begin"], value["end"]
    return step_of(Kind(value["kind"]), value["level"], records, begin, end, run.invalid)
