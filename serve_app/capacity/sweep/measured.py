"""The measurements of a sweep, kept as a folder.

sweep.json            the options, and the folder of each step
slots-4/03-rate-12/   a step: `run.json` and `requests.jsonl`, as of any load test
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from serve_app.capacity.results.request_records import RecordError, read_run
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.steps import StepKind, SweepStep, split_into_steps, step_of
from serve_app.errors import ServiceError

SWEEP = "sweep.json"


class SweepError(ServiceError):
    """A folder without a sweep, or a service that can't be swept."""


@dataclass(frozen=True)
class Measured:
    """The steps of load on one replica. `slots`: its parallel requests; None if unknown."""

    slots: int | None
    steps: tuple[SweepStep, ...]

    @property
    def invalid(self) -> list[str]:
        """The reasons why the load generator's figures of some steps must not be used."""
        return [
            f"{step.kind} {step.level:g}: {reason}"
            for step in self.steps
            for reason in step.invalid
        ]


@dataclass(frozen=True)
class Sweep:
    """Measurements with their options.

    `service` and `load` as in the scenario of an experiment; `budget`: of each step.
    """

    measured: tuple[Measured, ...]
    slo: Slo
    service: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, sweep: Sweep, places: Sequence[Sequence[str]]) -> None:
    """Write a sweep. `places`: the folders of the steps, by measurement, within `folder`."""
    value = {
        "slo": str(sweep.slo),
        "service": sweep.service,
        "load": sweep.load,
        "budget": sweep.budget,
        "measured": [
            {
                "slots": measurement.slots,
                "steps": [
                    {"kind": s.kind, "level": s.level, "begin": s.begin, "end": s.end, "at": at}
                    for s, at in zip(measurement.steps, where, strict=True)
                ],
            }
            for measurement, where in zip(sweep.measured, places, strict=True)
        ],
    }
    (folder / SWEEP).write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def read(folder: Path) -> Sweep:
    """Read a sweep. Raises SweepError, also if it ended before its first measurement."""
    sweep = read_begun(folder)
    if not sweep.measured:
        raise SweepError(f"{folder} holds an unfinished sweep; continue it with `sweep --resume`")
    return sweep


def read_begun(folder: Path) -> Sweep:
    """Read a sweep with the measurements that are finished. Raises SweepError."""
    try:
        value = orjson.loads((folder / SWEEP).read_bytes())
        return Sweep(
            tuple(_measured(folder, measurement) for measurement in value["measured"]),
            Slo.parse(value["slo"]),
            value["service"],
            value["load"],
            value.get("budget", {}),
        )
    except (OSError, RecordError, KeyError, TypeError, ValueError) as exc:
        raise SweepError(f"{folder} holds no sweep: {exc}") from exc


def read_runs(folders: Iterable[Path], slots: int | None, window_s: float) -> Measured:
    """Split load tests of one replica into steps of arrival rate. Raises RecordError."""
    steps: list[SweepStep] = []
    for folder in folders:
        run, records = read_run(folder)
        steps += split_into_steps(records, window_s, run.invalid)
    return Measured(slots, tuple(steps))


def _measured(folder: Path, value: dict[str, Any]) -> Measured:
    return Measured(
        value["slots"], tuple(_step(folder, measurement) for measurement in value["steps"])
    )


def _step(folder: Path, value: dict[str, Any]) -> SweepStep:
    run, records = read_run(folder / value["at"])
    begin, end = value["begin"], value["end"]
    return step_of(StepKind(value["kind"]), value["level"], records, begin, end, run.invalid)
