"""One run: the load generator and the sampler, from before the load until replicas settle."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from serve_app.capacity.experiment.generators import (
    TOOLS,
    GeneratorError,
    GeneratorRun,
    LoadOptions,
)
from serve_app.capacity.experiment.watch import Watch, WatchError
from serve_app.capacity.results.cluster_samples import SAMPLES, Sample
from serve_app.capacity.results.request_records import Record, Run, read_run
from serve_app.capacity.workload.scenario import Scenario

_EVERY_S = 1.0
_SHOW_EVERY_S = 0.5
_FIRST_ATTEMPTS = 5
# Replicas have settled when their number has been the initial one for this long.
_QUIET_S = 5.0


@dataclass(slots=True)
class Progress:
    """The progress of a run, for display."""

    phase: str = ""
    done_s: float = 0.0
    total_s: float = 1.0
    answered: int = 0
    sample: Sample | None = None


Show = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Records and samples of a run. `load_start` in Unix seconds."""

    run: Run
    records: list[Record]
    samples: list[Sample]
    load_start: float
    interrupted: bool


@dataclass(slots=True)
class Sampler:
    """Takes a sample every second and writes it to `file`."""

    watch: Watch
    file: Path
    samples: list[Sample] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Sampler"]:
        """Sample until the context ends. Raises WatchError if the first sample fails."""
        await self._first()
        task = asyncio.create_task(self._sample_on())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def last(self) -> Sample:
        return self.samples[-1]

    def settled(self, at_first: int) -> bool:
        """Tell whether no replica starts or drains any more, and at most `at_first` run."""
        since = self.last.at - _QUIET_S
        return all(
            s.target == s.billed == s.running <= at_first for s in self.samples if s.at >= since
        )

    async def _first(self) -> None:
        """Take the first sample, for which Ray's dashboard may need several attempts."""
        for _ in range(_FIRST_ATTEMPTS - 1):
            with suppress(WatchError):
                await self._take()
                return
            await asyncio.sleep(_EVERY_S)
        await self._take()

    async def _sample_on(self) -> None:
        due = monotonic()
        while True:
            due = max(due + _EVERY_S, monotonic())
            await asyncio.sleep(due - monotonic())
            with suppress(WatchError):  # without this sample, the last one holds
                await self._take()

    async def _take(self) -> None:
        sample = await self.watch.sample()
        self.samples.append(sample)
        with self.file.open("ab") as file:
            file.write(sample.line())


class Runner:
    """Drives one run in `folder`. Setting `stop` ends it early and keeps its records."""

    def __init__(
        self,
        scenario: Scenario,
        load: LoadOptions,
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
        """Drive the run. Raises WatchError, GeneratorError, RecordError."""
        async with Sampler(watch, self._folder / SAMPLES).running() as sampler:
            at_first = sampler.last.target
            await self._wait("before the load", self._scenario.before_s, sampler, _never)
            if self._stop.is_set():
                raise GeneratorError("the run was interrupted before the load began")
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
        generator = await GeneratorRun.start(self._tool, self._load, self._folder)
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
        """Wait for the last answers, which the tool bounds in time, or for `stop`."""
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
        """Wait for `seconds`, for `over` or for `stop`, and show the progress."""
        start = monotonic()
        while (passed := monotonic() - start) < seconds and not over() and not self._stop.is_set():
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
    """Return the start of the load in Unix seconds, after the start-up of the tool."""
    intended = min((record.intended for record in records), default=None)
    return run.began if first_s is None or intended is None else intended - first_s


def _never() -> bool:
    return False
