"""Measures the cost of limits: keys with limits beside keys without, in the same service.

For each store of counts one service runs before one instant engine, with 10,000 keys, half of each
kind. Both kinds get the same load in turns: two services with equal settings would differ by more
than limits cost. Only the CPU time of HAProxy and the replica counts: Ray's other processes take a
fifth of a core at any load.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any

import click

from tests.bench.measure import Measurement, Task, measure
from tests.bench.systems import MODEL, SLOTS, System, running
from tests.support.redis_server import redis_server

KEYS = 5_000  # of each kind: a file of keys has at most 1 MiB
MEMORY, REDIS = "limits in memory", "limits in Redis"
FREE, LIMITED = "without limits", "with limits"
_PREFIXES = {FREE: "bench-0f9b3a1c2d4e5f60-f", LIMITED: "bench-0f9b3a1c2d4e5f60-l"}
_LIMITS = (
    "requests_per_minute: 1000000, tokens_per_minute: 1000000000, tokens_per_day: 1000000000000"
)
_TASK = Task("32 clients, 16 tokens", 32, 2, 16, keys=KEYS)
_WARM_UP = Task("warm-up", 8, 3, 16, keys=KEYS)
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Goal:
    """Microseconds of CPU that a request may cost more, and the share of requests/s that stays."""

    max_added_us: float
    min_speed: float


GOALS = {MEMORY: Goal(25, 0.95), REDIS: Goal(140, 0.75)}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost against keys without limits: medians of differences and ratios within each turn."""

    system: str
    added_us: float
    speed: float
    failed: int

    @property
    def is_met(self) -> bool:
        goal = GOALS[self.system]
        met = self.added_us <= goal.max_added_us and self.speed >= goal.min_speed
        return met and not self.failed

    def __str__(self) -> str:
        goal = GOALS[self.system]
        return (
            f"{self.system}: {self.added_us:+.0f} us of CPU a request (at most "
            f"+{goal.max_added_us:g}), requests/s x {self.speed:.2f} (at least "
            f"{goal.min_speed:g}), {self.failed} failed: {'met' if self.is_met else 'MISSED'}"
        )


@click.command(help=__doc__)
@click.option("--rounds", default=20, show_default=True, help="Alternations of the load.")
@click.option("--out", type=Path, default=Path("results/bench"), show_default=True)
def main(rounds: int, out: Path) -> None:
    measured = list(run(rounds))
    costs = [cost(name, measured) for name in GOALS]
    for line in costs:
        click.echo(line)
    out.mkdir(parents=True, exist_ok=True)
    value = {"costs": list(map(asdict, costs)), "measurements": list(map(asdict, measured))}
    (out / "limits.json").write_text(json.dumps(value, indent=1) + "\n")
    sys.exit(0 if all(line.is_met for line in costs) else 1)


def run(rounds: int) -> Iterator[Measurement]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        engine = stack.enter_context(running("engine", "simulator", decode_tokens_per_s=0))
        limits = {
            MEMORY: {"store": "memory"},
            REDIS: {"store": "redis", "redis_url": stack.enter_context(redis_server(folder))},
        }
        settings = _settings(engine, folder)
        for name, store in limits.items():
            with running(name, "service", **settings, limits=store) as system:
                yield from _turns(system, rounds)


def _turns(system: System, rounds: int) -> Iterator[Measurement]:
    for prefix in _PREFIXES.values():
        system.key = prefix
        measure(system, _WARM_UP, 0)
    for number in range(rounds):
        kinds = (FREE, LIMITED) if number % 2 else (LIMITED, FREE)
        for kind in kinds:
            system.key = _PREFIXES[kind]
            sleep(_SETTLE_S)
            before = system.request_cpu_s()
            measured = measure(system, _TASK, number)
            used = system.request_cpu_s() - before
            requests = measured.requests_per_s * _TASK.seconds
            load = f"{_TASK.name}, {kind}"
            yield replace(measured, load=load, cpu_s_per_1000=1000 * used / requests)


def _settings(engine: System, folder: Path) -> dict[str, Any]:
    file = folder / "keys.yaml"
    free, limited = _PREFIXES[FREE], _PREFIXES[LIMITED]
    lines = [f"f{n:05d}: {free}{n:05d}\n" for n in range(KEYS)]
    lines += [f"l{n:05d}: {{key: {limited}{n:05d}, {_LIMITS}}}\n" for n in range(KEYS)]
    file.write_text("".join(lines))
    return {
        "topology": "direct",
        "models": MODEL,
        "engine": {"kind": "attach", "url": engine.url, "slots": SLOTS},
        "autoscaling": {"min_replicas": 1, "max_replicas": 1},
        "api_keys_file": str(file),
    }


def cost(name: str, measured: list[Measurement]) -> Cost:
    turns: dict[int, dict[bool, Measurement]] = {}
    for one in measured:
        if one.system == name:
            turns.setdefault(one.round, {})[one.load.endswith(LIMITED)] = one
    pairs = [(turn[True], turn[False]) for turn in turns.values()]
    return Cost(
        name,
        median(1000 * (limited.cpu_s_per_1000 - free.cpu_s_per_1000) for limited, free in pairs),
        median(limited.requests_per_s / free.requests_per_s for limited, free in pairs),
        sum(limited.failed + free.failed for limited, free in pairs),
    )


if __name__ == "__main__":
    main()
