"""`make soak`: ten minutes of disconnects, killed engines and killed replicas under load.

Every answer is complete, an explicit error, or refused, and nothing has leaked at the end: no
slots, file descriptors, tasks or processes.
"""

import asyncio
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import click
import httpx
from rich.console import Console
from rich.progress import Progress

from serve_app.capacity.clients.asyncio_client import AsyncioClient
from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.workload.requests import Prompt
from tests.bench.systems import System, processes, running

_USERS = 10
_ENGINE = {
    "kind": "simulated",
    "slots": 4,
    "simulated": {"decode_tokens_per_s": 50, "answer_tokens": 200},
}
_REPLICAS, _QUEUE = 2, 4
_DIALECTS = ("openai", "ollama", "anthropic")
_ENGINE_COMMAND = "-m serve_app.simulator"


@dataclass
class Tally:
    """Counts of outcomes; `lost`: neither complete, nor an explicit error, nor refused."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    lost: list[Record] = field(default_factory=list)

    def keep(self, record: Record) -> None:
        self.outcomes[record.outcome] += 1
        if is_lost(record):
            self.lost.append(record)


def is_lost(record: Record) -> bool:
    """Tell whether an answer is incomplete without an error, or timed out.

    A connection that breaks is an explicit error. The engine generates as many tokens as are
    requested.
    """
    if record.ok:
        return record.output_tokens != record.asked_output_tokens
    silent = record.outcome is ClientOutcome.TRUNCATED and not record.error
    return silent or record.outcome is ClientOutcome.TIMEOUT


@dataclass(frozen=True, slots=True)
class State:
    """Resources that could leak: processes by kind, descriptors and tasks of the worst replica.

    No `tasks`: Ray, which takes some seconds, has not exported a replica's counts yet.
    """

    processes: Counter[str]
    descriptors: int
    tasks: int
    in_flight: int


@click.command(help=__doc__)
@click.option("--topology", type=click.Choice(["direct", "gateway"]), default="gateway")
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(topology: str, minutes: float, seed: int) -> None:
    console = Console()
    scaling = {"min_replicas": _REPLICAS, "max_replicas": _REPLICAS}
    options = {"topology": topology, "queue": _QUEUE, "engine": _ENGINE, "autoscaling": scaling}
    with running(topology, "service", **options) as system:
        problems = asyncio.run(_run(system, 60 * minutes, random.Random(seed), console))
    for problem in problems:
        console.print(f"[red]LEAK OR LOSS[/red] {problem}")
    console.print("nothing was lost silently, nothing has leaked" if not problems else "")
    sys.exit(1 if problems else 0)


async def _run(system: System, seconds: float, rng: random.Random, console: Console) -> list[str]:
    tally, end = Tally(), monotonic() + seconds
    await _users(system, tally, lambda: tally.outcomes.total() < 50, rng)  # warm-up
    before = await _settled(system)
    console.print("before", before)
    with Progress(console=console) as progress:
        bar = progress.add_task("soaking", total=seconds)
        chaos = asyncio.create_task(_chaos(system, tally, rng))
        clock = asyncio.create_task(_tick(lambda: progress.update(bar, advance=1)))
        await _users(system, tally, lambda: monotonic() < end, rng)
        for task in (chaos, clock):
            task.cancel()
    after = await _settled(system, before)
    slots = await _slots(system)
    console.print("after", after)
    console.print("requests", dict(tally.outcomes), "kills", dict(tally.kills))
    return [*_losses(tally), *_leaks(before, after), *slots]


async def _slots(system: System) -> list[str]:
    """Fill all slots once more; return a problem if a slot was not released.

    By more requests than replicas take, or a replica that has just failed would get too few.
    """
    engines = [_stats_url(system, pid) for pid in _engines(system)]
    tally, all_slots = Tally(), _ENGINE["slots"] * _REPLICAS
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in engines:
            await http.post(f"{url}/_sim/reset")
        async with AsyncioClient(RequestTarget(system.url), tally.keep) as client:
            prompt = Prompt([{"role": "user", "content": "tell me"}], 5, 100)
            places = all_slots + _QUEUE * _REPLICAS
            await asyncio.gather(*(client.ask(prompt) for _ in range(places + _REPLICAS)))
        stats = [(await http.get(f"{url}/_sim/stats")).json() for url in engines]
    used = sum(stat["max_in_flight"] for stat in stats)
    return (
        [] if used == all_slots else [f"{all_slots - used} of {all_slots} slots were not available"]
    )


def _stats_url(system: System, pid: int) -> str:
    command = processes(system.process.pid)[pid]
    return f"http://127.0.0.1:{command.partition('--port ')[2].split()[0]}"


async def _tick(tell: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(1)
        tell()


async def _users(
    system: System, tally: Tally, goes_on: Callable[[], bool], rng: random.Random
) -> None:
    client = AsyncioClient(RequestTarget(system.url), tally.keep)
    async with client, asyncio.TaskGroup() as users:
        for _ in range(_USERS):
            users.create_task(_user(client, goes_on, rng))


async def _user(client: AsyncioClient, goes_on: Callable[[], bool], rng: random.Random) -> None:
    while goes_on():
        client.target = replace(
            client.target, dialect=rng.choice(_DIALECTS), stream=rng.random() < 0.7
        )
        words = "tell me of a river " * rng.randint(1, 20)
        prompt = Prompt([{"role": "user", "content": words}], 5, rng.randint(1, 100))
        asking = asyncio.create_task(client.ask(prompt))
        if rng.random() < 0.2:
            await asyncio.wait({asking}, timeout=rng.random() * 2)
            asking.cancel()  # a disconnect, while waiting or running
        with suppress(asyncio.CancelledError):
            request = await asking
            if not request.record().ok:
                await asyncio.sleep(rng.random())


async def _chaos(system: System, tally: Tally, rng: random.Random) -> None:
    while True:
        await asyncio.sleep(rng.uniform(5, 15))
        kind = "replica" if rng.random() < 0.25 else "engine"
        if pids := (_replicas if kind == "replica" else _engines)(system):
            with suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)
                tally.kills[kind] += 1


def _engines(system: System) -> list[int]:
    commands = processes(system.process.pid).items()
    return [
        pid
        for pid, command in commands
        if _ENGINE_COMMAND in command and "supervisor.py" not in command
    ]


def _replicas(system: System) -> list[int]:
    commands = processes(system.process.pid).items()
    return [
        pid for pid, command in commands if command.startswith("ray::ServeReplica:default:pool")
    ]


async def _settled(system: System, wanted: State | None = None, within_s: float = 60) -> State:
    """Return the state when nothing runs and, if given, when it has fallen to `wanted`."""
    deadline = monotonic() + within_s
    while True:
        state = await _state(system)
        calm = state.tasks > 0 and state.in_flight == 0 and len(_engines(system)) == _REPLICAS
        if monotonic() > deadline or (calm and not (wanted and list(_leaks(wanted, state)))):
            return state
        await asyncio.sleep(1)


async def _state(system: System) -> State:
    commands = processes(system.process.pid)
    kinds = Counter(kind for command in commands.values() if (kind := _kind(command)))
    serving = [pid for pid, command in commands.items() if command.startswith("ray::ServeReplica")]
    gauges = await _gauges(system)
    return State(
        processes=kinds,
        descriptors=max((_descriptors(pid) for pid in serving), default=0),
        tasks=int(max(gauges.get("ray_llm_event_loop_tasks", [0]))),
        in_flight=int(sum(gauges.get("ray_llm_requests_in_flight", [0]))),
    )


def _kind(command: str) -> str:
    if command.startswith("ray::ServeReplica"):
        return "replica"
    if _ENGINE_COMMAND in command:
        return "supervisor" if "supervisor.py" in command else "engine"
    return "haproxy" if "bin/haproxy" in command else ""


def _descriptors(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


async def _gauges(system: System) -> dict[str, list[float]]:
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(system.metrics_url)).text
    gauges: dict[str, list[float]] = {}
    for name, value in re.findall(r"^(ray_llm_\w+)\{[^}]*\} ([\d.e+-]+)$", text, re.MULTILINE):
        gauges.setdefault(name, []).append(float(value))
    return gauges


def _losses(tally: Tally) -> list[str]:
    return [f"lost: {record}" for record in tally.lost]


def _leaks(before: State, after: State) -> list[str]:
    leaks = []
    if not (before.tasks and after.tasks):
        leaks.append("tasks and requests were not counted: Ray did not export them")
    if after.in_flight:
        leaks.append(f"{after.in_flight} requests are still in flight")
    for kind in before.processes | after.processes:
        if after.processes[kind] > before.processes[kind]:
            leaks.append(f"{kind}: {before.processes[kind]} before, {after.processes[kind]} after")
    if after.descriptors > before.descriptors + 10:
        leaks.append(f"descriptors: {before.descriptors} before, {after.descriptors} after")
    if after.tasks > before.tasks + 5:
        leaks.append(f"tasks: {before.tasks} before, {after.tasks} after")
    return leaks


if __name__ == "__main__":
    main()
