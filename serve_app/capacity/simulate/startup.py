"""Distributions of the time from the decision to start a replica to its first request."""

import math
import random
import warnings
from dataclasses import dataclass
from typing import Protocol

from serve_app.capacity.workload.text import WorkloadError, pairs, parse_number

HELP = "30s | uniform:min=20s,max=60s | lognormal:median=30s,p95=60s"
_Z95 = 1.6448536269514722  # the standard normal's 95th percentile


class Startup(Protocol):
    """A distribution in seconds; an oracle plans with `usual`."""

    @property
    def usual(self) -> float: ...

    def draw(self, rng: random.Random) -> float: ...


@dataclass(frozen=True, slots=True)
class FixedStartup:
    usual: float

    def draw(self, rng: random.Random) -> float:
        return self.usual

    def __str__(self) -> str:
        return f"{self.usual:g} s"


@dataclass(frozen=True, slots=True)
class UniformStartup:
    min_s: float
    max_s: float

    @property
    def usual(self) -> float:
        return self.max_s

    def draw(self, rng: random.Random) -> float:
        return rng.uniform(self.min_s, self.max_s)

    def __str__(self) -> str:
        return f"{self.min_s:g} to {self.max_s:g} s"


@dataclass(frozen=True, slots=True)
class LognormalStartup:
    median: float
    p95: float

    @property
    def usual(self) -> float:
        return self.p95

    def draw(self, rng: random.Random) -> float:
        sigma = math.log(self.p95 / self.median) / _Z95
        return rng.lognormvariate(math.log(self.median), sigma)

    def __str__(self) -> str:
        return f"{self.median:g} s, 1 in 20 above {self.p95:g} s"


@dataclass(slots=True)
class ReplayedStartup:
    """Repeats observed times in their order, once; draws from them after the last.

    The first starts decide how long the first wave waits, so their order counts. Each simulation
    needs an own instance.
    """

    seconds: tuple[float, ...]
    _drawn: int = 0

    @property
    def usual(self) -> float:
        return max(self.seconds)

    def draw(self, rng: random.Random) -> float:
        if self._drawn == len(self.seconds):
            return rng.choice(self.seconds)
        self._drawn += 1
        return self.seconds[self._drawn - 1]

    def __str__(self) -> str:
        return f"{min(self.seconds):.1f} to {max(self.seconds):.1f} s"


def parse_startup(text: str) -> Startup:
    """Read one of the forms in `HELP`. Raises WorkloadError."""
    name, _, options = text.rpartition(":")
    values = {_current(key): parse_number(value) for key, value in pairs(options)}
    match name, sorted(values):
        case "", [""]:
            return FixedStartup(values[""])
        case "uniform", ["max", "min"] if values["min"] <= values["max"]:
            return UniformStartup(values["min"], values["max"])
        case "lognormal", ["median", "p95"] if 0 < values["median"] <= values["p95"]:
            return LognormalStartup(values["median"], values["p95"])
        case _:
            raise WorkloadError(f"{text!r} is not a start-up time; write {HELP}")


def _current(key: str) -> str:
    """Return the name of an option; warn of one from version 0.1."""
    name = {"least": "min", "most": "max"}.get(key, key)
    if name != key:
        warnings.warn(f"{key}= is now {name}=: write {HELP}", FutureWarning, stacklevel=3)
    return name
