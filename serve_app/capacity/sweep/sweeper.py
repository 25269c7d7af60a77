"""Find the limits of one replica: users until throughput stops growing, then arrivals.

Steps of users show the maximum throughput. Steps of arrivals show the latency that callers see, and
last until bounds on it can be judged.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_app.capacity.clients.asyncio_client import send_load
from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.request_records import Record, RecordError, Run, read_run, write_run
from serve_app.capacity.results.run_folder import claim
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.measured import Measured
from serve_app.capacity.sweep.steps import StepKind, SweepStep, saturation, step_of
from serve_app.capacity.workload.load import LoadSpec

# The first arrival rate as a share of the throughput that users have reached.
_FIRST_SHARE = 0.75
# The search ends when met and missed rates differ by less than this share of the throughput.
_CLOSE = 0.1

LoadStep = Callable[[RequestTarget, LoadSpec], Awaitable[tuple[Run, list[Record]]]]


@dataclass(frozen=True, slots=True)
class StepBudget:
    """Limits of steps. Within them a step lasts as long as its bounds need."""

    warm_up_s: float = 5.0
    min_s: float = 10.0
    max_s: float = 120.0
    max_users: int = 64
    requests_per_user_step: int = 40

    @property
    def max_steps(self) -> int:
        """The maximum number of steps: doublings of users and halvings of the range of rates."""
        return self.max_users.bit_length() + 1 + math.ceil(math.log2(_FIRST_SHARE / _CLOSE))


@dataclass
class Sweeper:
    """Sweeps a service of one replica.

    `show` gets the name of a step before it, `done` the step after it. `resume`: steps in `folder`
    are read instead of measured.
    """

    target: RequestTarget
    load: dict[str, Any]
    slo: Slo
    folder: Path
    budget: StepBudget = field(default_factory=StepBudget)
    show: Callable[[str], object] = lambda _: None
    generator: LoadStep = send_load
    done: Callable[[SweepStep], object] = lambda _: None
    resume: bool = False
    places: list[str] = field(default_factory=list)
    steps: list[SweepStep] = field(default_factory=list)

    async def run(self, slots: int | None) -> Measured:
        await self._users()
        await self._rates()
        return Measured(slots, tuple(self.steps))

    async def _users(self) -> None:
        users = 1
        while users <= self.budget.max_users and saturation(self.steps) is None:
            await self._step(StepKind.CONCURRENCY, users)
            users *= 2

    async def _rates(self) -> None:
        """Halve the range between a rate that meets the SLO and one that misses it."""
        max_rate = max(step.completed_per_s for step in self.steps)
        met, missed, share = 0.0, 1.0, _FIRST_SHARE
        while missed - met > _CLOSE and max_rate > 0:
            step = await self._step(StepKind.RATE, round(share * max_rate, 3))
            if self._misses(step):
                missed = share
            else:
                met = share
            share = (met + missed) / 2

    def _misses(self, step: SweepStep) -> bool:
        """Tell whether a step misses the SLO, by observed values even of too few requests.

        The search needs a direction.
        """
        over = any(result.value > result.bound.limit for result in self.slo.judge(step.records))
        return over or saturation([step]) is not None

    async def _step(self, kind: StepKind, level: float) -> SweepStep:
        seconds = self._seconds(kind, level)
        place = f"{len(self.steps):02d}-{kind}-{level:g}"
        run, records = self._read(place) or await self._measure(place, kind, level, seconds)
        self.places.append(place)
        begin = run.began + self.budget.warm_up_s
        step = step_of(kind, level, records, begin, begin + seconds, run.invalid)
        self.steps.append(step)
        self.done(step)
        return step

    def _read(self, place: str) -> tuple[Run, list[Record]] | None:
        if not self.resume:
            return None
        try:
            return read_run(self.folder / place)
        except RecordError:
            return None

    async def _measure(
        self, place: str, kind: StepKind, level: float, seconds: float
    ) -> tuple[Run, list[Record]]:
        self.show(f"{kind} {level:g} for {self.budget.warm_up_s + seconds:.0f} s")
        run, records = await self.generator(self.target, self._spec(kind, level, seconds))
        claim(self.folder / place, force=True)  # the files of an unfinished step
        write_run(self.folder / place, run, records)
        return run, records

    def _spec(self, kind: StepKind, level: float, seconds: float) -> LoadSpec:
        hold = self.budget.warm_up_s + seconds
        how = {
            "load": "closed" if kind is StepKind.CONCURRENCY else "open",
            "shape": f"constant:level={level:g},hold={hold:g}s",
            "seed": len(self.steps),
        }
        return LoadSpec(**{**self.load, **how})

    def _seconds(self, kind: StepKind, level: float) -> float:
        if kind is StepKind.RATE:
            # A tenth more, because a Poisson process may give fewer.
            needed_s = 1.1 * max((bound.needed for bound in self.slo.bounds), default=0) / level
        else:
            needed_s = self._user_seconds(level)
        return min(self.budget.max_s, max(self.budget.min_s, needed_s))

    def _user_seconds(self, users: float) -> float:
        """Compute the length of a step by the time of an answer in the previous one."""
        before: Sequence[SweepStep] = self.steps[-1:]
        return sum(self.budget.requests_per_user_step * s.e2e_s / users for s in before)
