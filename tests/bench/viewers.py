"""Measures the cost of fifty viewers of the page: none for an idle service, little for a busy one.

    python -m tests.bench.viewers idle     the target stays, no request is refused, p50 and p99
    python -m tests.bench.viewers drain    seconds until two of three replicas have left
    python -m tests.bench.viewers busy     CPU per 1,000 requests, without and with viewers

    python -m tests.bench.viewers answer   time of one answer about 64 replicas

A viewer polls `GET /admin/fleet` over one connection when the last answer asks for it, as the page
does. CPU is that
of the service's own processes, the collector's included, without the engine's. A change of the
machine's speed touches both services of `busy`.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from time import monotonic, perf_counter, sleep
from typing import Any

import click
import httpx

from serve_app.capacity.results.statistics import quantile
from serve_app.capacity.simulate.intervals import interval
from tests.bench.measure import Measurement, Task, measure
from tests.bench.systems import MODEL, SLOTS, System, cpu_s, part_of, processes, running
from tests.bench.viewer_client import VIEWERS, viewers
from tests.support.fleets import Stage
from tests.support.scenes import sixty_four
from tests.support.service import Service, serving, start_simulator

_WARM_UP = Task("warm-up", 8, 3, 16)
_SETTLE_S = 5.0
_RESTS_S = 3.0  # after this without a poll nothing is gathered
_MAX_RATIO = 1.02
_WINDOWS = 3
_MAX_ANSWER_MS = 5.0
_SHRINKING = {
    "initial_replicas": 3,
    "max_replicas": 3,
    "downscale_delay_s": 5,
    "look_back_period_s": 2,
    "metrics_interval_s": 0.5,
}


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
    """Scale from three replicas to one, in turn without and with viewers."""
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    refused = 0
    for _ in range(rounds):
        for name, durations in seconds.items():
            number = VIEWERS if name == "with" else 0
            with service(**_SHRINKING) as system, viewers(system.url, number) as watching:
                durations.append(_left_s(system))
                views = watching.stop()
                refused += views.refused
            click.echo(f"{name} viewers: one replica is left after {durations[-1]:.1f} s; {views}")
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


@dataclass(frozen=True, slots=True)
class Window:
    """Two services under the same load at the same time, of which one has viewers."""

    without: Measurement
    watched: Measurement

    @property
    def ratio(self) -> float:
        return self.watched.cpu_s_per_1000 / self.without.cpu_s_per_1000

    @property
    def added_ms_per_s(self) -> float:
        more = self.watched.cpu_s_per_1000 - self.without.cpu_s_per_1000
        return more * self.watched.requests_per_s


@main.command()
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(2))
@click.option("--seconds", default=4.0, show_default=True, help="Of each load.")
@click.option("--out", type=Path, default=Path("results/bench"), show_default=True)
def busy(rounds: int, seconds: float, out: Path) -> None:
    """Load two services at the same time, of which one and then the other has viewers."""
    task = Task("16 clients, 16 tokens", 16, seconds, 16)
    measured: list[list[Window]] = []
    with ExitStack() as stack:
        systems = [RequestCost(**vars(stack.enter_context(service()))) for _ in range(2)]
        for system in systems:
            measure(system, _WARM_UP, 0)
        for number in range(rounds):
            windows = [w for one in (0, 1) for w in _windows(systems, one, task, number)]
            measured.append(windows)
            click.echo(
                f"{mean(window.added_ms_per_s for window in windows):+.1f} ms of CPU a second"
            )
    added = [mean(w.added_ms_per_s for w in windows) for windows in measured]
    cost = interval([mean(w.ratio for w in windows) for windows in measured])
    rate = mean(w.without.requests_per_s for windows in measured for w in windows)
    full = interval([1 + ms / 1000 for ms in added])
    click.echo(f"{VIEWERS} viewers take {interval(added):.1f} ms of CPU a second")
    click.echo(f"CPU per 1,000 requests: x {cost:.3f} at {rate:.0f} requests/s")
    click.echo(f"x {full:.3f} of a service that takes a whole core, at most {_MAX_RATIO}")
    out.mkdir(parents=True, exist_ok=True)
    value = [[asdict(window) for window in windows] for windows in measured]
    (out / "viewers.json").write_text(json.dumps(value, indent=1) + "\n")
    failed = sum(w.without.failed + w.watched.failed for windows in measured for w in windows)
    _end(full.mean <= _MAX_RATIO and not failed)


def _windows(
    systems: "list[RequestCost]", watched: int, task: Task, number: int
) -> Iterator[Window]:
    """Measure while one of the services has viewers and the collector of the other one rests."""
    on, off = systems[watched], systems[1 - watched]
    with viewers(on.url) as watching, ThreadPoolExecutor(2) as pool:
        fleet(on.url)
        sleep(_RESTS_S)
        on.is_watched = True
        for _ in range(_WINDOWS):
            yield Window(*pool.map(lambda system: measure(system, task, number), (off, on)))
        on.is_watched = False
        if refused := watching.stop().refused:
            raise RuntimeError(f"{refused} polls were refused")


@main.command()
@click.option("--polls", default=2000, show_default=True)
def answer(polls: int) -> None:
    """Request the document of a service with 64 replicas, without Ray."""
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
    """Run a direct service before an instant engine, with one replica unless `scaling` is given."""
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

    The collector counts while there are viewers: without them it does not run.
    """

    is_watched: bool = False

    def cpu_s(self) -> float:
        others = ("ray::DashboardAgent",) + (() if self.is_watched else ("ray::FleetCollector",))
        lines = processes(self.process.pid).items()
        return sum(cpu_s(pid) for pid, line in lines if not line.startswith(others))


def fleet(url: str) -> dict[str, Any]:
    """Return the first document of the collector. Raises TimeoutError."""
    deadline = monotonic() + 30
    while monotonic() < deadline:
        document: dict[str, Any] = httpx.get(f"{url}/admin/fleet", trust_env=False).json()
        if not document["collecting"]:
            return document
        sleep(0.2)
    raise TimeoutError("the state of the fleet is not gathered")


if __name__ == "__main__":
    main()
