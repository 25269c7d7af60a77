"""Replays Azure's trace of conversations against one key's limit, in virtual time.

`python -m tests.support.limit_trace ../shared/data/azure_llm_2023_conv.csv` prints the overrun: how
far the bucket is below zero, as a share of a minute's tokens, sampled once a second.

Every request is sent once; refused ones are not repeated. A token of a prompt has 4 bytes, with a
spread of 15 % between prompts. An answer begins after 0.2 s and has 33 tokens a second.
"""

import heapq
import random
import sys
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from itertools import count
from pathlib import Path
from typing import Any

from serve_app.access.caller import Caller
from serve_app.access.limits.days import Calendar
from serve_app.access.limits.limiter import Estimate, Limiter, Reservation
from serve_app.access.limits.memory import MemoryStore
from serve_app.access.limits.quotas import MINUTE_S
from serve_app.access.policies import Limits
from serve_app.capacity.results.statistics import quantile
from serve_app.capacity.workload.traces import read
from serve_app.limit_settings import LimitSettings

FIRST_TOKEN_S, TOKENS_PER_S = 0.2, 33.0
BYTES_PER_TOKEN, SPREAD = 4.0, 0.15
MAX_TOKENS = 1500  # about as many as the trace's longest answer has
MODEL = "m:latest"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the trace. `prompt`: its tokens, of `size` bytes."""

    at_s: float
    prompt: int
    generated: int
    size: int


@dataclass(slots=True)
class Result:
    """Overruns as shares of a minute's tokens, one a second; requests and weighted tokens."""

    limit: int
    overruns: list[float] = field(default_factory=list)
    served: int = 0
    refused: int = 0
    tokens: float = 0.0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        return sum(self.overruns) / len(self.overruns)

    def __str__(self) -> str:
        allowed = self.limit * (1 + self.seconds / MINUTE_S)
        return (
            f"{self.served:6} served {self.refused:6} refused   overrun: mean {self.mean:7.3%}  "
            f"p99 {quantile(self.overruns, 0.99):7.3%}  worst {max(self.overruns):7.3%}   "
            f"tokens used of those allowed: {self.tokens / allowed:.3f}"
        )


def arrivals(path: Path, seed: int = 0) -> list[Arrival]:
    random_ = random.Random(seed)
    return [
        Arrival(
            request.at_s,
            request.prompt_tokens,
            request.output_tokens,
            round(request.prompt_tokens * BYTES_PER_TOKEN * random_.lognormvariate(0, SPREAD)),
        )
        for request in read(path)
    ]


def replay(requests: list[Arrival], settings: LimitSettings, per_minute: int) -> Result:
    """Let one key with a limit of `per_minute` weighted tokens send all `requests`."""
    return _Replay(settings, per_minute).run(requests)


class _Replay:
    def __init__(self, settings: LimitSettings, per_minute: int) -> None:
        self._now = 0.0
        store = MemoryStore(lambda: self._now)
        self._store = store
        self._limiter = Limiter(settings, store, Calendar(UTC, lambda: self._now))
        self._caller = Caller("ada", limits=Limits(tokens_per_minute=per_minute))
        self._ends: list[tuple[float, int, Arrival, Estimate, Reservation]] = []
        self._numbers = count()
        self._result = Result(per_minute)

    def run(self, requests: list[Arrival]) -> Result:
        for request in requests:
            self._pass(request.at_s)
            self._ask(request)
        self._result.seconds = self._now
        return self._result

    def _pass(self, until_s: float) -> None:
        """End the answers until then, and sample the bucket once a second."""
        while self._ends and self._ends[0][0] <= until_s:
            end_s = self._ends[0][0]
            self._sample(end_s)
            self._settle(*heapq.heappop(self._ends)[2:])
        self._sample(until_s)

    def _sample(self, until_s: float) -> None:
        for second in range(int(self._now) + 1, int(until_s) + 1):
            self._now = float(second)
            self._result.overruns.append(max(0.0, -self._level()) / self._result.limit)
        self._now = until_s

    def _level(self) -> float:
        (quota,) = self._caller.quotas
        counts = self._store._of(quota.subject, self._now)
        return counts.balance(quota, "", self._now).tokens

    def _ask(self, request: Arrival) -> None:
        estimate = self._limiter.estimate(self._caller, MODEL, request.size, MAX_TOKENS)
        reservation = _run(self._limiter.reserve(self._caller, estimate))
        if not reservation.claim:
            self._result.refused += 1
            return
        self._result.served += 1
        end_s = self._now + FIRST_TOKEN_S + request.generated / TOKENS_PER_S
        entry = (end_s, next(self._numbers), request, estimate, reservation)
        heapq.heappush(self._ends, entry)

    def _settle(self, request: Arrival, estimate: Estimate, reservation: Reservation) -> None:
        tokens = self._limiter.cost(MODEL).of(request.prompt, request.generated)
        self._limiter.settle(reservation, tokens)
        self._limiter.learn(self._caller, estimate, request.prompt, request.generated)
        self._result.tokens += tokens


def _run(coroutine: Coroutine[Any, Any, Reservation]) -> Reservation:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        reservation: Reservation = stop.value
        return reservation
    raise AssertionError("a store in memory has waited")


def mean_requests(requests: list[Arrival], number: int, cost: Any) -> int:
    """Return the weighted tokens of `number` mean requests."""
    return round(number * sum(cost.of(r.prompt, r.generated) for r in requests) / len(requests))


CASES: dict[str, dict[str, Any]] = {
    "typical, all tokens": {},
    "max, all tokens": {"reserve": "max"},
    "typical, output tokens": {"cost": {"m": {"in": 0, "out": 1}}},
    "max, output tokens": {"reserve": "max", "cost": {"m": {"in": 0, "out": 1}}},
}


def results(path: Path, number: int = 20) -> Iterator[tuple[str, Result]]:
    """Yield the result of each case, with a limit of `number` mean requests a minute."""
    requests = arrivals(path)
    for name, case in CASES.items():
        settings = LimitSettings.model_validate(case)
        cost = settings.cost.get("m") or Limiter(settings, MemoryStore(), Calendar(UTC)).cost("")
        yield name, replay(requests, settings, mean_requests(requests, number, cost))


if __name__ == "__main__":
    for case_name, result in results(Path(sys.argv[1])):
        print(f"{case_name:24}{result}")
