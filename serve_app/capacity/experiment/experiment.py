"""From inputs to a folder with a report: start or attach, run as often as asked, write."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from serve_app.capacity.experiment import report, service
from serve_app.capacity.experiment.generators import Load
from serve_app.capacity.experiment.inputs import Inputs
from serve_app.capacity.experiment.panels import Seen
from serve_app.capacity.experiment.report import Result
from serve_app.capacity.experiment.run import Outcome, Runner, Show
from serve_app.capacity.experiment.service import Service
from serve_app.capacity.experiment.summary import Findings, findings, shape_of
from serve_app.capacity.slo import Slo
from serve_app.capacity.watch import watching


@dataclass(frozen=True, slots=True)
class Attach:
    """A service that runs already: its address, Ray's dashboard and its token."""

    url: str
    dashboard: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Experiment:
    """`attach` is None where a service is to be started, anew for each run."""

    inputs: Inputs
    tool: str
    folder: Path
    command: str
    repeat: int = 1
    attach: Attach | None = None
    application: str = "default"
    deployment: str = ""

    async def run(self, stop: asyncio.Event, show: Show) -> list[Findings]:
        """Raises ServiceNotReady, WatchError, GeneratorError, RecordError."""
        results: list[Result] = []
        for number in range(1, self.repeat + 1):
            folder = self.folder / f"run-{number}" if self.repeat > 1 else self.folder
            results.append(await self._once(folder, stop, show))
            if stop.is_set():
                break
        if self.repeat > 1:
            self.inputs.write(self.folder)
            summary = compared([result.findings for result in results])
            report.write_all(self.folder, results, self.inputs, summary, self.command)
        return [result.findings for result in results]

    async def _once(self, folder: Path, stop: asyncio.Event, show: Show) -> Result:
        self.inputs.write(folder)
        async with self._service(folder) as there:
            load = Load(self.inputs.load, self.inputs.slo, there.url)
            runner = Runner(self.inputs, load, self.tool, folder, stop, show)
            deployment = self.deployment or self.inputs.pool.name
            async with watching(
                there.dashboard, there.token, self.application, deployment
            ) as watch:
                outcome = await runner.run(watch)
        result = result_of(folder, self.inputs, outcome)
        report.write(result, self.inputs, self.command)
        return result

    @asynccontextmanager
    async def _service(self, folder: Path) -> AsyncIterator[Service]:
        if self.attach:
            yield await service.attached(self.attach.url, self.attach.dashboard, self.attach.token)
            return
        async with service.started(self.inputs, folder) as there:
            yield there


def result_of(folder: Path, inputs: Inputs, outcome: Outcome) -> Result:
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
    return Result(folder, seen, found)


def compared(runs: Sequence[Findings]) -> dict[str, Any]:
    """Of several runs of one load: each figure's median and its least and greatest value."""
    figures = {
        "ttft_p50": [run.latency.ttft.quantiles["p50"] for run in runs],
        "ttft_p99": [run.latency.ttft.quantiles["p99"] for run in runs],
        "slo_attainment": [run.slo_attainment for run in runs],
        "replica_seconds": [run.replica_seconds for run in runs],
        "peak_running": [float(run.peak_running) for run in runs],
        "lost": [float(run.lost) for run in runs],
    }
    return {
        "runs": len(runs),
        **{
            name: {"median": median(values), "least": min(values), "greatest": max(values)}
            for name, values in figures.items()
        },
    }
