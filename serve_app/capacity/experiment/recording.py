"""One run that has been done: its folder, and what that says. Read back, it says the same."""

from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from serve_app.capacity.experiment.panels import Seen
from serve_app.capacity.experiment.run import Outcome
from serve_app.capacity.experiment.summary import Findings, findings, shape_of
from serve_app.capacity.results.records import RecordError, read_run
from serve_app.capacity.results.samples import read_samples
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.workload.scenario import SCENARIO, Inputs

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Recording:
    folder: Path
    inputs: Inputs
    seen: Seen
    findings: Findings


def recording(folder: Path, inputs: Inputs, outcome: Outcome) -> Recording:
    """What was seen, and what it says."""
    run = replace(outcome.run, began=outcome.began)
    found = findings(inputs, run, outcome.records, outcome.samples, outcome.interrupted)
    seen = Seen(
        records=outcome.records,
        samples=outcome.samples,
        slo=Slo.parse(inputs.slo),
        began=outcome.began,
        shape=shape_of(inputs),
        slots=inputs.pool.engine.slots,
    )
    return Recording(folder, inputs, seen, found)


def read(folder: Path) -> Recording:
    """Of a folder that an experiment has written. Raises RecordError, InputsError."""
    run, records = read_run(folder)
    try:
        told = orjson.loads((folder / SUMMARY).read_bytes())
        began, interrupted = float(told["load_began"]), bool(told["interrupted"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise RecordError(f"{folder} holds no {SUMMARY} of an experiment: {exc}") from exc
    outcome = Outcome(run, records, read_samples(folder), began, interrupted)
    return recording(folder, Inputs.read(str(folder / SCENARIO)), outcome)


def read_all(folder: Path) -> list[Recording]:
    """The runs of a folder: itself, or its `run-1`, `run-2`, …. Raises RecordError, InputsError."""
    runs = sorted(folder.glob("run-*"), key=lambda each: int(each.name.removeprefix("run-")))
    return [read(each) for each in runs or [folder]]
