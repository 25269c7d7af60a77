"""`make soak`: the use of 10,000 requests with disconnects, killed engines and replicas.

The totals of `/admin/usage` equal the engines' own counts: exactly for whole answers, within the
events under way for others. A killed replica that is the ingress takes its last records with it.
"""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.progress import Progress

from tests.bench.systems import MODEL, System, processes, running
from tests.support.ollama_script import write_ollama
from tests.support.ollama_simulator.journal import read
from tests.support.redis_server import redis_server
from tests.support.usage_audit import Audit, audit, send, settled, used, write_keys

# One replica has room for all users while the other one starts anew.
_REPLICAS, _SLOTS, _QUEUE, _USERS = 2, 8, 24, 24
_TOKENS_PER_S = 400


@click.command(help=__doc__)
@click.option("--topology", type=click.Choice(["direct", "gateway"]), default="gateway")
@click.option("--requests", default=10_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(topology: str, requests: int, seed: int) -> None:
    with TemporaryDirectory() as name:
        problems = _run(topology, requests, random.Random(seed), Path(name))
    sys.exit(1 if problems else 0)


def _run(topology: str, requests: int, rng: random.Random, folder: Path) -> list[str]:
    console, journal, keys = Console(), folder / "journal", folder / "keys"
    write_keys(keys, requests)
    speed = ("--models", MODEL, "--decode-tokens-per-s", str(_TOKENS_PER_S))
    binary = write_ollama(folder / "ollama", *speed, "--journal", str(journal))
    scaling = {"min_replicas": _REPLICAS, "max_replicas": _REPLICAS}
    with redis_server(folder) as redis_url:
        options = {
            "topology": topology,
            "engine": {"kind": "ollama", "binary": str(binary), "slots": _SLOTS},
            "queue": _QUEUE,
            "autoscaling": scaling,
            "api_keys_file": str(keys),
            "limits": {"store": "redis", "redis_url": redis_url},
        }
        with running(topology, "service", **options) as system:
            result, kills = asyncio.run(_measure(system, requests, rng, journal, console))
    # The running requests of a replica, and those of the last half second.
    bound = kills["replica"] * (_SLOTS + _QUEUE + 100) if topology == "direct" else 0
    if result.unrecorded > bound:
        result.problems.append(f"{result.unrecorded} requests have no record, at most {bound} may")
    for problem in result.problems[:20]:
        console.print(f"[red]DIFFERENCE[/red] {problem}")
    figures = {name: value for name, value in asdict(result).items() if name != "problems"}
    console.print(topology, "kills", dict(kills), figures, f"prompts {result.prompt_error:+.2%}")
    console.print("" if result.problems else "the recorded use equals the engines' counts")
    return result.problems


async def _measure(
    system: System, requests: int, rng: random.Random, journal: Path, console: Console
) -> tuple[Audit, Counter[str]]:
    kills: Counter[str] = Counter()
    with Progress(console=console) as progress:
        bar = progress.add_task("asking", total=requests)
        chaos = asyncio.create_task(_chaos(system, journal, kills, rng))
        records = await send(
            system.url, requests, _USERS, rng, lambda: progress.update(bar, advance=1)
        )
        chaos.cancel()
    use = await settled(lambda: used(system.url), pause_s=2)
    outcomes = Counter(record.outcome for record in records.values())
    console.print("requests", dict(outcomes))
    return audit(records, use, await asyncio.to_thread(read, journal)), kills


async def _chaos(system: System, journal: Path, kills: Counter[str], rng: random.Random) -> None:
    while True:
        await asyncio.sleep(rng.uniform(4, 8))
        kind = "replica" if rng.random() < 0.25 else "engine"
        mark = "ray::ServeReplica:default:pool" if kind == "replica" else str(journal)
        commands = processes(system.process.pid).items()
        pids = [pid for pid, line in commands if mark in line and "supervisor.py" not in line]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)
                kills[kind] += 1


if __name__ == "__main__":
    main()
