"""The loads of the comparison: two recorded traces, and one of agents that is generated.

`rate` multiplies the arrivals of a recorded trace, and is the number of new agents a second of the
generated one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.capacity.workload.traces import read

# Mooncake's time stamps are multiples of this.
CLUMP_S = 3.0
BLOCK = 512


@dataclass(frozen=True)
class Mooncake:
    path: Path
    name: str = "mooncake"

    def requests(self, rate: float, seed: int) -> list[WorkloadRequest]:
        """Spread the arrivals over their clumps, then replay them `rate` times as fast."""
        rng = random.Random(seed)
        spread = [replace(r, at_s=r.at_s + rng.uniform(0, CLUMP_S)) for r in read(self.path)]
        return _faster(sorted(spread, key=lambda r: r.at_s), rate)


@dataclass(frozen=True)
class Azure:
    path: Path
    name: str = "azure"

    def requests(self, rate: float, seed: int) -> list[WorkloadRequest]:
        """Shift each arrival by up to half a second, so that seeds differ."""
        rng = random.Random(seed)
        shifted = [replace(r, at_s=r.at_s + rng.uniform(0, 0.5)) for r in read(self.path)]
        return _faster(sorted(shifted, key=lambda r: r.at_s), rate)


@dataclass(frozen=True)
class Agents:
    """Agents of three kinds, each with its system prompt and tools, which call tools in turns.

    A turn appends the last answer and the result of a tool; the next one follows when the answer
    would be there at 40 tokens/s, and the tool has run.
    """

    count: int = 12_000
    name: str = "agents"

    def requests(self, rate: float, seed: int) -> list[WorkloadRequest]:
        rng = random.Random(f"agents {seed}")
        requests: list[WorkloadRequest] = []
        at_s, number = 0.0, 0
        while len(requests) < self.count:
            at_s += rng.expovariate(rate)
            number += 1
            requests.extend(_agent(number, at_s, rng))
        # The fleet sees a steady crowd: what begins after the last arrival is left out.
        return [r for r in sorted(requests, key=lambda r: r.at_s) if r.at_s <= at_s]


def _agent(number: int, at_s: float, rng: random.Random) -> Iterator[WorkloadRequest]:
    kind = rng.randrange(3)
    system = [-1 - 100 * kind - i for i in range(8)]  # 4096 tokens
    prompt = BLOCK * len(system) + rng.randint(200, 1500)
    own = (number << 20) + BLOCK
    for turn in range(rng.randint(8, 40)):
        output = min(600, max(16, round(rng.lognormvariate(4.6, 0.7))))
        blocks = (*system, *range(own, own + prompt // BLOCK - len(system)))
        yield WorkloadRequest(at_s, prompt, output, f"agent-{number}", turn, blocks)
        at_s += output / 40 + rng.lognormvariate(1.2, 0.9)
        prompt += output + min(4000, round(rng.lognormvariate(5.8, 0.9)))


def _faster(requests: list[WorkloadRequest], rate: float) -> list[WorkloadRequest]:
    return [replace(r, at_s=r.at_s / rate) for r in requests]


def reusable(requests: list[WorkloadRequest]) -> float:
    """Return the share of prompt tokens that an endless cache in one place would hold."""
    seen: set[int] = set()
    hits = total = 0
    for request in requests:
        common = 0
        for block in request.blocks:
            if block not in seen:
                break
            common += BLOCK
        seen.update(request.blocks)
        hits += min(common, request.prompt_tokens)
        total += request.prompt_tokens
    return hits / total
