"""What fifty viewers of the page cost: nothing of an idle service, little of a busy one.

    python -m tests.bench.viewers idle     the target stays, no request is refused, p50 and p99
    python -m tests.bench.viewers drain    seconds until two of three replicas have left
    python -m tests.bench.viewers busy     CPU per 1,000 requests, without and with viewers

    python -m tests.bench.viewers answer   time of one answer about 64 replicas

A viewer polls `GET /admin/fleet` over one connection when the last answer asks for it, as the page
does. CPU is that
of the service's own processes, the collector's included, without the engine's. Requests of a busy
service take CPU from each other and from whatever else runs: the more rounds, the better.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import mean
from time import monotonic, perf_counter, sleep
from typing import Any

import click
import httpx

from serve_app.capacity.results.statistics import quantile
from serve_app.ray_serve.fleet_collector import WATCHED_S
from tests.bench.measure import Measurement, Task, measure
from tests.bench.systems import MODEL, SLOTS, System, cpu_s, part_of, processes, running
from tests.bench.viewer_client import VIEWERS, Views, Watching, viewers
from tests.support.fleets import Stage
from tests.support.scenes import sixty_four
from tests.support.service import Service, serving, start_simulator

_WARM_UP = Task("warm-up", 8, 3, 16)
_SETTLE_S = 5.0
_MAX_RATIO = 1.02
_MAX_ANSWER_MS = 5.0
_SEED = 19
_SHRINKING = {
    "initial_replicas": 3,
    "max_replicas": 3,
    "downscale_delay_s": 5,
    "look_back_period_s": 2,
    "metrics_interval_s": 0.5,
}


@dataclass(frozen=True, slots=True)
class Ratio:
    """A mean ratio over rounds, and the bounds between which it lies with 95 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"x {self.mean:.4f} ({self.low:.4f} to {self.high:.4f})"


def ratio(values: Sequence[float]) -> Ratio:
    """Return the mean with its interval, by resampling the rounds."""
    random = Random(_SEED)
    means = sorted(mean(random.choices(values, k=len(values))) for _ in range(10_000))
    return Ratio(mean(values), means[250], means[-251])


@click.group(help=__doc__)
def main() -> None:
    """Run one of the measurements."""


@main.command()
@click.option("--seconds", default=60, show_default=True)
def idle(seconds: int) -> None:
    """Let viewers poll an idle service that may grow."""
    with service(max_replicas=4, upscale_delay_s=1) as system:
        sleep(2 * _SETTLE_S)
        without = _cpu_of(system, seconds / 4)
        with viewers(system.url) as watching:
            sleep(2 * _SETTLE_S)
            watched_cpu = _cpu_of(system, seconds)
            views = watching.stop()
            document = fleet(system.url)
    click.echo(f"{VIEWERS} viewers, {seconds} s: {views}")
    _show_cpu(without, watched_cpu)
    (pool,) = document["pools"]
    states = [replica["state"] for replica in pool["replicas"]]
    click.echo(f"target {pool['scaling']['target']}, replicas: {', '.join(states)}")
    is_met = pool["scaling"]["target"] == 1 and states == ["ready"] and not views.refused
    _end(is_met and views.p50_ms < _MAX_ANSWER_MS)


def _cpu_of(system: System, seconds: float) -> dict[str, float]:
    """Return the CPU of an idle service by process, in milliseconds per second."""
    before = system.cpu_by_process()
    sleep(seconds)
    after = system.cpu_by_process()
    return {name: 1000 * (used - before.get(name, 0.0)) / seconds for name, used in after.items()}


def _show_cpu(without: Mapping[str, float], watched_cpu: Mapping[str, float]) -> None:
    total = sum(watched_cpu.values()) - sum(without.values())
    click.echo(f"CPU, ms per second: {total:+.1f} in all")
    for name, used in sorted(watched_cpu.items(), key=lambda entry: -entry[1]):
        if used >= 1:
            click.echo(f"  {name}: {without.get(name, 0.0):.1f}, with viewers {used:.1f}")


@main.command()
@click.option("--rounds", default=3, show_default=True)
def drain(rounds: int) -> None:
    """Let two of three replicas go, in turn without and with viewers."""
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    refused = 0
    for _ in range(rounds):
        for name, found in seconds.items():
            number = VIEWERS if name == "with" else 0
            with service(**_SHRINKING) as system, viewers(system.url, number) as watching:
                found.append(_left_s(system))
                views = watching.stop()
                refused += views.refused
            click.echo(f"{name} viewers: one replica is left after {found[-1]:.1f} s; {views}")
    _end(mean(seconds["with"]) < mean(seconds["without"]) + 1 and not refused)


def _left_s(system: System) -> float:
    """Return the seconds until the processes of all replicas but one have ended."""
    began = monotonic()
    while monotonic() < began + 120:
        lines = processes(system.process.pid).values()
        if sum(part_of(line) == "replica of pool" for line in lines) == 1:
            return monotonic() - began
        sleep(0.1)
    raise TimeoutError("the replicas have not ended")


@main.command()
@click.option("--rounds", default=8, show_default=True)
@click.option("--seconds", default=8.0, show_default=True, help="Of each load.")
@click.option("--clients", default=32, show_default=True)
@click.option("--out", type=Path, default=Path("results/bench"), show_default=True)
def busy(rounds: int, seconds: float, clients: int, out: Path) -> None:
    """Load a service in turn without and with viewers."""
    task = Task(f"{clients} clients, 16 tokens", clients, seconds, 16)
    pairs: list[tuple[Measurement, Measurement]] = []
    polls: list[Views] = []
    with service() as running_service:
        system = RequestCost(**vars(running_service))
        measure(system, _WARM_UP, 0)
        with watched(system):  # the collector starts
            sleep(_SETTLE_S)
        for number in range(rounds):
            off = measure(system, task, number)
            with watched(system) as watching:
                on = measure(system, task, number)
                polls.append(watching.stop())
            pairs.append((off, on))
            click.echo(
                f"{1000 * off.cpu_s_per_1000:.0f} us of CPU a request, "
                f"{1000 * on.cpu_s_per_1000:.0f} with viewers; {polls[-1]}"
            )
    cost = ratio([on.cpu_s_per_1000 / off.cpu_s_per_1000 for off, on in pairs])
    speed = ratio([on.requests_per_s / off.requests_per_s for off, on in pairs])
    click.echo(f"CPU per 1,000 requests: {cost}, at most {_MAX_RATIO}; requests/s: {speed}")
    out.mkdir(parents=True, exist_ok=True)
    value = {
        "cpu": asdict(cost),
        "speed": asdict(speed),
        "polls": list(map(asdict, polls)),
        "rounds": [[asdict(off), asdict(on)] for off, on in pairs],
    }
    (out / "viewers.json").write_text(json.dumps(value, indent=1) + "\n")
    refused = sum(views.refused for views in polls) + sum(m.failed for pair in pairs for m in pair)
    _end(cost.mean <= _MAX_RATIO and not refused)


@main.command()
@click.option("--polls", default=2000, show_default=True)
def answer(polls: int) -> None:
    """Ask a service of which the document has 64 replicas, without Ray."""
    asyncio.run(_answer(polls))


async def _answer(polls: int) -> None:
    simulator, stage = start_simulator(), Stage(sixty_four())
    try:
        async with serving(simulator, fleet=stage) as service:
            etag = (await service.get("/admin/fleet")).headers["etag"]
            size = len((await stage.latest()).body)
            whole = [await _seconds(service, {}) for _ in range(polls)]
            same = [await _seconds(service, {"if-none-match": etag}) for _ in range(polls)]
    finally:
        simulator.stop()
    for name, seconds in (("200", whole), ("304", same)):
        p50, p99 = (1000 * quantile(seconds, q) for q in (0.5, 0.99))
        click.echo(
            f"{name}, {size} bytes, the client's time included: p50 {p50:.2f} ms, p99 {p99:.2f} ms"
        )
    _end(1000 * quantile(whole, 0.99) < _MAX_ANSWER_MS)


async def _seconds(service: Service, headers: dict[str, str]) -> float:
    began = perf_counter()
    await service.get("/admin/fleet", headers=headers)
    return perf_counter() - began


def _end(is_met: bool) -> None:
    click.echo("met" if is_met else "MISSED")
    sys.exit(0 if is_met else 1)


@contextmanager
def service(**scaling: Any) -> Iterator[System]:
    """A direct service of one replica before an instant engine, unless `scaling` says otherwise."""
    with running("engine", "simulator", decode_tokens_per_s=0) as engine:
        settings = {
            "topology": "direct",
            "models": MODEL,
            "engine": {"kind": "attach", "url": engine.url, "slots": SLOTS},
            "autoscaling": {"min_replicas": 1, "max_replicas": 1, **scaling},
        }
        with running("direct", "service", **settings) as system:
            yield system


@dataclass
class RequestCost(System):
    """A service, without Ray's agent, whose work comes in bursts: it sends metrics every 10 s.

    The collector counts where somebody watches: otherwise there would be none.
    """

    is_watched: bool = False

    def cpu_s(self) -> float:
        others = ("ray::DashboardAgent",) + (() if self.is_watched else ("ray::FleetCollector",))
        lines = processes(self.process.pid).items()
        return sum(cpu_s(pid) for pid, line in lines if not line.startswith(others))


@contextmanager
def watched(system: RequestCost) -> Iterator[Watching]:
    """Viewers who see the fleet. After them, until the collector rests."""
    with viewers(system.url) as watching:
        fleet(system.url)
        system.is_watched = True
        yield watching
    system.is_watched = False
    sleep(WATCHED_S + 1)


def fleet(url: str) -> dict[str, Any]:
    """Return the first document of the collector. Raises TimeoutError."""
    deadline = monotonic() + 30
    while monotonic() < deadline:
        document: dict[str, Any] = httpx.get(f"{url}/admin/fleet", trust_env=False).json()
        if not document["collecting"]:
            return document
        sleep(0.2)
    raise TimeoutError("nobody gathers the state of the fleet")


if __name__ == "__main__":
    main()
