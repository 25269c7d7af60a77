"""`make bench`: this service beside the engine itself, the stock way, and peers if installed.

LiteLLM is a peer after `make bench-peers`, Olla with `OLLA=path/to/binary`.

Every phase starts all systems before one engine and gives each the same loads in turn, round by
round, so that a machine whose speed drifts drifts for all of them.
"""

import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from tests.bench import report
from tests.bench.compare import (
    DIRECT,
    EMBEDDED,
    ENGINE,
    FULL_DIRECT,
    FULL_GATEWAY,
    GATEWAY,
    LEAST_LOADED,
    LITELLM,
    MANY,
    OLLA,
    ONE,
    PACED,
    PAUSED,
    STOCK,
    rows,
    verdicts,
)
from tests.bench.measure import Measurement, Task, measure
from tests.bench.systems import SLOTS, System, running

_PEERS = Path(".venv-peers/bin/python")
_WARM_UP = Task("warm-up", 8, 1.5, 8)
_EMBEDDED_CLIENTS = 4
_TASKS = {
    "instant": [
        Task(ONE, 1, 2, 16),
        Task(MANY, 32, 3, 16),
        Task(PAUSED, 1, 5, 16, pause_s=0.05),  # last, because a replica that was idle takes a while
    ],
    "paced": [Task(PACED, 64, 8, 64)],
    "embedded": [Task(EMBEDDED, _EMBEDDED_CLIENTS, 15, 64)],
}
_SYSTEMS = ",".join([DIRECT, GATEWAY, STOCK, LITELLM, OLLA])
_KEY = "bench-0f9b3a1c2d4e5f60718293a4b5c6d7e8"
_SETTLE_S = 1.0  # paused processes catch up with their timers
_PACE = 100.0  # tokens per second of one stream


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, help="Alternations of each load.")
@click.option("--phases", default="instant,paced,embedded", show_default=True)
@click.option("--systems", default=_SYSTEMS, show_default=True)
@click.option("--out", type=Path, default=Path("results/bench"), show_default=True)
def main(rounds: int, phases: str, systems: str, out: Path) -> None:
    console = Console()
    measured = list(run(phases.split(","), systems.split(","), rounds, console))
    table = rows(measured)
    report.show(console, table)
    report.write(out, _about(rounds), table, measured)
    console.print(f"written to {out}")
    sys.exit(0 if all(verdict.floor_met for verdict in verdicts(table)) else 1)


def run(
    phases: Sequence[str], wanted: Sequence[str], rounds: int, console: Console
) -> Iterator[Measurement]:
    total = sum(len(_TASKS[phase]) for phase in phases) * rounds
    with Progress(console=console) as progress:
        bar = progress.add_task("starting", total=total)
        for phase in phases:
            with ExitStack() as stack:
                systems = list(_started(phase, wanted, stack))
                for system in systems:
                    measure(system, _WARM_UP, 0)
                for number in range(rounds):
                    for task in _TASKS[phase]:
                        progress.update(bar, advance=1, description=f"{phase}, round {number + 1}")
                        for system in systems:
                            with _alone(system, systems):
                                yield measure(system, task, number)


@contextmanager
def _alone(system: System, systems: Sequence[System]) -> Iterator[None]:
    """Pause all systems but this one and its engine; beside the engine alone, one Ray runs."""
    engine, *others = systems
    runs = others[:1] if system is engine else [system]
    for other in others:
        other.resume() if other in runs else other.pause()
    sleep(_SETTLE_S)
    yield


def _started(phase: str, wanted: Sequence[str], stack: ExitStack) -> Iterator[System]:
    engine = stack.enter_context(_engine(phase))
    yield engine
    settings = _settings(phase, engine)
    full = {"api_keys_file": _keys_file(stack), "limits": {"store": "memory"}}
    one = {"min_replicas": 1, "max_replicas": 1}  # of the ingress, as limits in memory need it
    kinds = {
        DIRECT: {"topology": DIRECT},
        GATEWAY: {"topology": GATEWAY},
        LEAST_LOADED: {"topology": GATEWAY, "routing": "least_loaded"},
        FULL_DIRECT: {"topology": DIRECT, "autoscaling": one, **full},
        FULL_GATEWAY: {"topology": GATEWAY, "gateway": one, **full},
    }
    for name, kind in kinds.items():
        if name in wanted:
            yield stack.enter_context(running(name, "service", key=_KEY, **kind, **settings))
    if phase == "embedded":
        return  # the engine is the bottleneck of every system
    if STOCK in wanted:
        yield stack.enter_context(running(STOCK, "stock", engine=engine.url))
    if LITELLM in wanted and _PEERS.exists():
        yield stack.enter_context(_litellm(engine))
    if OLLA in wanted and (binary := os.environ.get("OLLA")):
        yield stack.enter_context(running(OLLA, "olla", engine=engine.url, binary=binary))


def _keys_file(stack: ExitStack) -> str:
    """Write a key with limits that the load does not reach. Returns the path of the file."""
    file = Path(stack.enter_context(TemporaryDirectory())) / "keys.yaml"
    limits = "requests_per_minute: 1000000, tokens_per_minute: 1000000000, max_parallel: 1000"
    groups = f"groups:\n  benches: {{{limits}}}\n"
    file.write_text(f"{groups}bench: {{key: {_KEY}, group: benches, {limits}}}\n")
    return str(file)


def _litellm(engine: System) -> Any:
    key = f"sk-{secrets.token_hex(16)}"
    options = {"engine": engine.url, "python": str(_PEERS.absolute()), "master_key": key}
    return running(LITELLM, "litellm", key=key, **options)


def _engine(phase: str) -> Any:
    if phase == "embedded":
        return running(ENGINE, "llamacpp", slots=_EMBEDDED_CLIENTS)
    return running(ENGINE, "simulator", decode_tokens_per_s=_PACE if phase == "paced" else 0)


def _settings(phase: str, engine: System) -> dict[str, Any]:
    if phase == "embedded":
        return {"engine": {"kind": "llamacpp", "slots": _EMBEDDED_CLIENTS}}
    return {"engine": {"kind": "attach", "url": engine.url, "slots": SLOTS}}


def _about(rounds: int) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m tests.bench", *sys.argv[1:]]),
        "rounds": rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ray": version("ray"),
        "olla": _olla_version(),
    }


def _olla_version() -> str:
    """Return the version that the measured Olla prints, "" without one."""
    binary = os.environ.get("OLLA")
    if not binary:
        return ""
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"Olla (v\S+)", done.stdout + done.stderr)
    return match[1] if match else "unknown"


if __name__ == "__main__":
    main()
