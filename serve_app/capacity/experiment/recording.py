"""A finished run: its folder, data and figures. A folder can be read back."""

from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from serve_app.capacity.experiment.panels import RunData
from serve_app.capacity.experiment.run import RunResult
from serve_app.capacity.experiment.summary import Findings, findings, shape_of
from serve_app.capacity.results.cluster_samples import read_samples
from serve_app.capacity.results.request_records import RecordError, read_run
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.workload.scenario import SCENARIO, Scenario

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Recording:
    """A finished run: its folder, data and figures."""

    folder: Path
    scenario: Scenario
    data: RunData
    findings: Findings


def recording(folder: Path, scenario: Scenario, outcome: RunResult) -> Recording:
    """Compute the figures of a finished run."""
    run = replace(outcome.run, began=outcome.load_start)
    run_findings = findings(scenario, run, outcome.records, outcome.samples, outcome.interrupted)
    data = RunData(
        records=outcome.records,
        samples=outcome.samples,
        slo=Slo.parse(scenario.slo),
        load_start=outcome.load_start,
        shape=shape_of(scenario),
        slots=scenario.pool.engine.slots,
    )
    return Recording(folder, scenario, data, run_findings)


def read(folder: Path) -> Recording:
    """Read the folder of a run. Raises RecordError, ScenarioError."""
    run, records = read_run(folder)
    try:
        summary = orjson.loads((folder / SUMMARY).read_bytes())
        load_start, interrupted = float(summary["load_began"]), bool(summary["interrupted"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise RecordError(f"{folder} holds no {SUMMARY} of an experiment: {exc}") from exc
    outcome = RunResult(run, records, read_samples(folder), load_start, interrupted)
    return recording(folder, Scenario.read(str(folder / SCENARIO)), outcome)


def read_all(folder: Path) -> list[Recording]:
    """Read the runs of a folder: itself, or `run-1`, `run-2`, ….

    Raises RecordError, ScenarioError.
    """
    runs = sorted(folder.glob("run-*"), key=lambda run: int(run.name.removeprefix("run-")))
    return [read(run) for run in runs or [folder]]
