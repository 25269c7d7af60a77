"""Models with Zipf demand that shifts in the middle, as both measurements use them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.capacity.workload.requests import WorkloadRequest

# Names in the order of Ollama's choice of a victim, which is that of their digests; seconds of a
# load by size, at 2 GiB/s.
MIB = {"f": 6000, "d": 9000, "b": 12000, "e": 16000, "a": 8000, "c": 20000}
# Three more, so that there is no room for all.
MORE_MIB = {**MIB, "g": 7000, "h": 10000, "i": 5000}


@dataclass(frozen=True)
class Demand:
    """Poisson arrivals for `seconds`. `zipf`: the exponent. In the middle the ranks turn around."""

    per_s: float
    seconds: float
    zipf: float = 1.0
    prompt_tokens: int = 200
    output_tokens: int = 80
    seed: int = 0
    models: tuple[str, ...] = tuple(sorted(MIB))

    def __iter__(self) -> Iterator[WorkloadRequest]:
        rng, at_s = random.Random(self.seed), 0.0
        names = self.models
        weights = [1 / rank**self.zipf for rank in range(1, len(names) + 1)]
        while (at_s := at_s + rng.expovariate(self.per_s)) < self.seconds:
            ranked = names if at_s < self.seconds / 2 else names[::-1]
            (model,) = rng.choices(ranked, weights)
            output = max(1, round(rng.expovariate(1 / self.output_tokens)))
            yield WorkloadRequest(at_s, self.prompt_tokens, min(output, 400), model=model)
