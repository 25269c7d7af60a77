"""What limits cost: 10,000 keys without limits, with limits in memory, and in a Redis on loopback.

Three services run before one instant engine and get the same load in turn, round by round. CPU is
that of HAProxy and the replica: Ray's other processes take a fifth of a core whatever comes, which
would be the more for each request the fewer there are.
"""

import json
import sys
from collections.abc import Iterator, Mapping
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

KEYS = 10_000
PLAIN, MEMORY, REDIS = "keys", "limits in memory", "limits in Redis"
_PREFIX = "bench-0f9b3a1c2d4e5f60-"
_DEFAULT = (
    "default:\n  requests_per_minute: 1000000\n  tokens_per_minute: 1000000000\n"
    "  tokens_per_day: 1000000000000\n"
)
_TASK = Task("32 clients, 16 tokens", 32, 3, 16, keys=KEYS)
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
    """Against keys without limits, the median of differences and ratios within each round."""

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
@click.option("--rounds", default=15, show_default=True, help="Alternations of the load.")
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
            PLAIN: {},
            MEMORY: {"store": "memory"},
            REDIS: {"store": "redis", "redis_url": stack.enter_context(redis_server(folder))},
        }
        systems = [
            stack.enter_context(running(name, "service", **_settings(name, engine, folder, store)))
            for name, store in limits.items()
        ]
        for system in systems:
            system.key = _PREFIX
            measure(system, _WARM_UP, 0)
        for number in range(rounds):
            first = number % len(systems)  # what comes later in a round is slower
            for system in systems[first:] + systems[:first]:
                for other in systems:
                    other.resume() if other is system else other.pause()
                sleep(_SETTLE_S)
                before = system.request_cpu_s()
                measured = measure(system, _TASK, number)
                used = system.request_cpu_s() - before
                requests = measured.requests_per_s * _TASK.seconds
                yield replace(measured, cpu_s_per_1000=1000 * used / requests)


def _settings(name: str, engine: System, folder: Path, store: Mapping[str, str]) -> dict[str, Any]:
    file = folder / f"{name.replace(' ', '-')}.yaml"
    lines = [f"k{number:05d}: {_PREFIX}{number:05d}\n" for number in range(KEYS)]
    file.write_text("".join([_DEFAULT] * (name != PLAIN) + lines))
    return {
        "topology": "direct",
        "models": MODEL,
        "engine": {"kind": "attach", "url": engine.url, "slots": SLOTS},
        "autoscaling": {"min_replicas": 1, "max_replicas": 1},
        "api_keys_file": str(file),
        "limits": dict(store),
    }


def cost(name: str, measured: list[Measurement]) -> Cost:
    by_round = {(m.system, m.round): m for m in measured}
    pairs = [(m, by_round[PLAIN, m.round]) for m in measured if m.system == name]
    return Cost(
        name,
        median(1000 * (one.cpu_s_per_1000 - plain.cpu_s_per_1000) for one, plain in pairs),
        median(one.requests_per_s / plain.requests_per_s for one, plain in pairs),
        sum(one.failed + plain.failed for one, plain in pairs),
    )


if __name__ == "__main__":
    main()
