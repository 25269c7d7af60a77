"""Lengths of prompts and answers, in tokens."""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from serve_app.capacity.workload.text import WorkloadError, pairs, parse_number

HELP = "100 | fixed:100 | lognormal:median=200,p95=800[,max=4000]"
_Z95 = 1.6448536269514722  # the standard normal's 95th percentile


class Distribution(Protocol):
    """A distribution of numbers of tokens."""

    def draw(self, rng: random.Random) -> int:
        """Draw a number of tokens, at least 1."""


class Lengths(Protocol):
    """A distribution of lengths of prompts and answers."""

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """Draw the tokens of a prompt and of its answer, both at least 1."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Equal numbers of tokens."""

    tokens: int

    def draw(self, rng: random.Random) -> int:
        return self.tokens

    def __str__(self) -> str:
        return f"fixed:{self.tokens}"


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Half of the draws are below `median`, 95 % below `p95`, none above `max_tokens`."""

    median: float
    p95: float
    max_tokens: float = math.inf

    def draw(self, rng: random.Random) -> int:
        sigma = math.log(self.p95 / self.median) / _Z95
        return max(1, round(min(self.max_tokens, rng.lognormvariate(math.log(self.median), sigma))))

    def __str__(self) -> str:
        bound = "" if math.isinf(self.max_tokens) else f",max={self.max_tokens:g}"
        return f"lognormal:median={self.median:g},p95={self.p95:g}{bound}"


def parse_lengths(text: str) -> Distribution:
    """Read one of the forms in `HELP`. Raises WorkloadError."""
    name, _, options = text.rpartition(":")
    values = {key: parse_number(value) for key, value in pairs(options)}
    match name, sorted(values):
        case "" | "fixed", [""]:
            return Fixed(max(1, round(values[""])))
        case "lognormal", ["median", "p95"] | ["max", "median", "p95"]:
            if not 0 < values["median"] <= values["p95"]:
                raise WorkloadError(f"{text!r}: median must be above 0 and at most p95")
            return Lognormal(values["median"], values["p95"], values.get("max", math.inf))
        case _:
            raise WorkloadError(f"{text!r} is not a distribution of lengths; write {HELP}")


@dataclass(frozen=True, slots=True)
class Independent:
    """Draws prompt and answer independently of each other."""

    prompt: Distribution
    output: Distribution

    def draw(self, rng: random.Random) -> tuple[int, int]:
        return self.prompt.draw(rng), self.output.draw(rng)


class Empirical:
    """Draws pairs of a trace with replacement, so that long prompts keep their answers."""

    def __init__(self, observed: Iterable[tuple[int, int]]) -> None:
        self._pairs: Sequence[tuple[int, int]] = list(observed)
        if not self._pairs:
            raise WorkloadError(
                "the trace has no requests in this span; no lengths can be drawn from it"
            )

    def draw(self, rng: random.Random) -> tuple[int, int]:
        return rng.choice(self._pairs)
