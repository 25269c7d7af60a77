"""Measures the cost of traces: services without, with a tenth traced, and with Ray's metrics.

Each gets half of the load while the service without traces gets the other half, so that a change of
the machine's speed touches both; a second service without them shows the noise. One instant engine
answers all. Only the CPU time of the replicas and of HAProxy counts: Ray's own processes work in
bursts.
"""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import click

from serve_app.capacity.simulate.intervals import Interval, interval
from tests.bench.measure import Measurement, Task, measure
from tests.bench.systems import MODEL, SLOTS, System, running
from tests.support.otlp import collector

OFF, ON, METRICS = "off", "a tenth traced", "a tenth traced, with Ray's metrics"
AGAIN = "off again"
MAX_RATIO = 1.03
_TASK = Task("16 clients, 16 tokens", 16, 2.0, 16)
_WARM_UP = Task("warm-up", 8, 3, 16)
_SETTLE_S = 0.3
_SAMPLER = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}


# Measurements of the service without traces and of another one, at the same time.
Pair = tuple[Measurement, Measurement]


@dataclass(frozen=True, slots=True)
class Ratio:
    """CPU per request relative to the service without traces: means of rounds, 95 % intervals."""

    system: str
    ratio: Interval
    added_us: Interval
    failed: int

    def __str__(self) -> str:
        return (
            f"{self.system}: CPU x {self.ratio:.3f}, {self.added_us:.0f} us more a request, "
            f"{self.failed} failed"
        )


class RequestPath(System):
    """A service of which only processes on the path of a request count."""

    def cpu_s(self) -> float:
        return self.request_cpu_s()


@click.command(help=__doc__)
@click.option("--topology", default="direct", show_default=True)
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(2))
@click.option("--out", type=Path, default=Path("results/bench"), show_default=True)
def main(topology: str, rounds: int, out: Path) -> None:
    measured = list(run(topology, rounds))
    ratios = [ratio(name, measured) for name in (AGAIN, ON, METRICS)]
    cpu = median(off.cpu_s_per_1000 for off, _ in measured)
    click.echo(f"{topology}, off: {cpu:.3f} s of CPU for 1,000 requests")
    for line in ratios:
        click.echo(line)
    out.mkdir(parents=True, exist_ok=True)
    value = {
        "ratios": list(map(asdict, ratios)),
        "pairs": [[*map(asdict, pair)] for pair in measured],
    }
    (out / f"tracing-{topology}.json").write_text(json.dumps(value, indent=1) + "\n")
    sys.exit(0 if ratios[1].ratio.mean <= MAX_RATIO and not ratios[1].failed else 1)


def run(topology: str, rounds: int) -> Iterator[Pair]:
    os.environ |= _SAMPLER
    with ExitStack() as stack:
        engine = stack.enter_context(running("engine", "simulator", decode_tokens_per_s=0))
        to = {"endpoint": stack.enter_context(collector()).http}
        traced = {OFF: {}, AGAIN: {}, ON: to, METRICS: {**to, "metrics": True}}
        systems = [
            RequestPath(**vars(stack.enter_context(running(name, "service", **settings))))
            for name, tracing in traced.items()
            for settings in [_settings(topology, engine, tracing)]
        ]
        for system in systems:
            measure(system, _WARM_UP, 0)
        for number in range(rounds):
            for system in systems[1:]:
                yield _together(systems, system, number)


def _together(systems: list[RequestPath], one: RequestPath, number: int) -> Pair:
    """Load the first system and another one at the same time, while the others stand still."""
    pair = (systems[0], one)
    for system in systems:
        system.resume() if system in pair else system.pause()
    sleep(_SETTLE_S)
    with ThreadPoolExecutor(2) as pool:
        off, on = pool.map(lambda system: measure(system, _TASK, number), pair)
    return off, on


def _settings(topology: str, engine: System, tracing: dict[str, Any]) -> dict[str, Any]:
    return {
        "topology": topology,
        "models": MODEL,
        "engine": {"kind": "attach", "url": engine.url, "slots": SLOTS},
        "autoscaling": {"min_replicas": 1, "max_replicas": 1},
        "tracing": tracing,
    }


def ratio(name: str, measured: list[Pair]) -> Ratio:
    """Compare with the service without traces, measured at the same time."""
    pairs = [(one, off) for off, one in measured if one.system == name]
    ratios = [one.cpu_s_per_1000 / off.cpu_s_per_1000 for one, off in pairs]
    added = [1000 * (one.cpu_s_per_1000 - off.cpu_s_per_1000) for one, off in pairs]
    failed = sum(one.failed + off.failed for one, off in pairs)
    return Ratio(name, interval(ratios), interval(added), failed)


if __name__ == "__main__":
    main()
