"""One run: the generator and the watch side by side, from before the load until all is quiet."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from serve_app.capacity.experiment.generators import TOOLS, Generator, GeneratorError, Load
from serve_app.capacity.experiment.watch import Watch, WatchError
from serve_app.capacity.results.cluster_samples import SAMPLES, Sample
from serve_app.capacity.results.request_records import Record, Run, read_run
from serve_app.capacity.workload.scenario import Scenario

_EVERY_S = 1.0
_SHOW_EVERY_S = 0.5
_FIRST_ATTEMPTS = 5
# Replicas are back when they have been as at first for so long.
_QUIET_S = 5.0


@dataclass(slots=True)
class Progress:
    """Where a run is, for those who wait for it."""

    phase: str = ""
    done_s: float = 0.0
    total_s: float = 1.0
    answered: int = 0
    sample: Sample | None = None


Show = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class RunResult:
    """`load_start`: when the load did, Unix seconds."""

    run: Run
    records: list[Record]
    samples: list[Sample]
    load_start: float
    interrupted: bool


@dataclass(slots=True)
class Sampler:
    """Takes a sample every second, keeps it and writes it."""

    watch: Watch
    file: Path
    samples: list[Sample] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Sampler"]:
        """Raises WatchError when no first sample can be had."""
        await self._first()
        task = asyncio.create_task(self._go_on())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def last(self) -> Sample:
        return self.samples[-1]

    def settled(self, at_first: int) -> bool:
        """Whether for a while no replica started or drained, and there were as many as at first."""
        since = self.last.at - _QUIET_S
        return all(
            s.target == s.billed == s.running <= at_first for s in self.samples if s.at >= since
        )

    async def _first(self) -> None:
        """Ray's dashboard may need a while for its first answer."""
        for _ in range(_FIRST_ATTEMPTS - 1):
            with suppress(WatchError):
                return await self._take()
            await asyncio.sleep(_EVERY_S)
        await self._take()
        return None

    async def _go_on(self) -> None:
        due = monotonic()
        while True:
            due = max(due + _EVERY_S, monotonic())
            await asyncio.sleep(due - monotonic())
            with suppress(WatchError):  # a second that was not seen: the last one holds
                await self._take()

    async def _take(self) -> None:
        sample = await self.watch.sample()
        self.samples.append(sample)
        with self.file.open("ab") as file:
            file.write(sample.line())


class Runner:
    """Does one run in `folder`. Set `stop` to end it early, with what was seen."""

    def __init__(
        self,
        scenario: Scenario,
        load: Load,
        tool: str,
        folder: Path,
        stop: asyncio.Event,
        show: Show,
    ) -> None:
        self._scenario = scenario
        self._load = load
        self._tool = tool
        self._folder = folder
        self._stop = stop
        self._show = show
        self._progress = Progress()

    async def run(self, watch: Watch) -> RunResult:
        """Raises WatchError, GeneratorError, RecordError."""
        async with Sampler(watch, self._folder / SAMPLES).running() as sampler:
            at_first = sampler.last.target
            await self._wait("before the load", self._scenario.before_s, sampler, _never)
            if self._stop.is_set():
                raise GeneratorError("interrupted before the load began: nothing was seen")
            await self._drive(sampler)
            await self._wait(
                "after the load",
                self._scenario.settle_s,
                sampler,
                lambda: sampler.settled(at_first),
            )
        run, records = read_run(self._folder)
        return RunResult(
            run=run,
            records=records,
            samples=sampler.samples,
            load_start=load_start(TOOLS[self._tool].first_s(self._load.spec()), run, records),
            interrupted=self._stop.is_set(),
        )

    async def _drive(self, sampler: Sampler) -> None:
        generator = await Generator.start(self._tool, self._load, self._folder)
        ended = asyncio.create_task(generator.wait())
        try:
            await self._wait("the load", self._seconds, sampler, ended.done, generator.answered)
            await self._until(ended)
        finally:
            await generator.stop()
            await ended
        generator.collect()

    @property
    def _seconds(self) -> float:
        spec = self._load.spec()
        if spec.shape == "trace":
            return max((request.at_s for request in spec.arrivals()), default=0.0)
        return spec.level().seconds

    async def _until(self, ended: "asyncio.Task[int]") -> None:
        """The load's time is up, its last answers are not there: the tool's own bounds hold."""
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()

    async def _wait(
        self,
        phase: str,
        seconds: float,
        sampler: Sampler,
        over: Callable[[], bool],
        answered: Callable[[], int] = lambda: 0,
    ) -> None:
        """Until `seconds` have passed, it is over, or somebody stops it; shows how far it is."""
        began = monotonic()
        while (passed := monotonic() - began) < seconds and not over() and not self._stop.is_set():
            self._progress = replace(
                self._progress,
                phase=phase,
                done_s=passed,
                total_s=seconds,
                answered=answered() or self._progress.answered,
                sample=sampler.last,
            )
            self._show(self._progress)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(_SHOW_EVERY_S, seconds - passed))


def load_start(first_s: float | None, run: Run, records: Sequence[Record]) -> float:
    """When the load's clock began: tools take their time to start. Unix seconds."""
    intended = min((record.intended for record in records), default=None)
    return run.began if first_s is None or intended is None else intended - first_s


def _never() -> bool:
    return False
