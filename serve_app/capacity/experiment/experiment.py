"""Run a scenario: start or attach to a service, drive the load, write a report."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from serve_app.capacity import service_under_test as service
from serve_app.capacity.experiment import comparison, report
from serve_app.capacity.experiment.generators import LoadOptions
from serve_app.capacity.experiment.recording import Recording, recording
from serve_app.capacity.experiment.run import Runner, Show
from serve_app.capacity.experiment.summary import Findings
from serve_app.capacity.experiment.watch import watching
from serve_app.capacity.service_under_test import ServiceUnderTest
from serve_app.capacity.workload.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Experiment:
    """One or more runs of a scenario. With `attach` None each run starts a new service."""

    scenario: Scenario
    tool: str
    folder: Path
    command: str
    repeat: int = 1
    attach: ServiceUnderTest | None = None
    application: str = "default"
    deployment: str = ""

    async def run(self, stop: asyncio.Event, show: Show) -> list[Findings]:
        """Run the scenario until `stop`. Raises ServiceNotReady, WatchError, GeneratorError,
        RecordError."""
        runs: list[Recording] = []
        for number in range(1, self.repeat + 1):
            folder = self.folder / f"run-{number}" if self.repeat > 1 else self.folder
            runs.append(await self._once(folder, stop, show))
            if stop.is_set():
                break
        if self.repeat > 1:
            comparison.write(self.folder, self.scenario.title, comparison.again(runs), self.command)
        return [run.findings for run in runs]

    async def _once(self, folder: Path, stop: asyncio.Event, show: Show) -> Recording:
        self.scenario.write(folder)
        async with self._service(folder) as running:
            load = LoadOptions(self.scenario.load, self.scenario.slo, running.url)
            runner = Runner(self.scenario, load, self.tool, folder, stop, show)
            deployment = self.deployment or self.scenario.pool.name
            async with watching(
                running.dashboard, running.token, self.application, deployment
            ) as watch:
                outcome = await runner.run(watch)
        done = recording(folder, self.scenario, outcome)
        report.write(done, self.command)
        return done

    @asynccontextmanager
    async def _service(self, folder: Path) -> AsyncIterator[ServiceUnderTest]:
        if self.attach:
            yield await service.attached(self.attach)
            return
        async with service.started(self.scenario, folder) as running:
            yield running
