"""`make overload`: five times the capacity of the slots, for a minute, between two quiet loads.

Admitted requests keep their speed, the others are refused at once, memory stays flat, and
afterwards the service is as fast as before.
"""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
from rich.console import Console

from serve_app.capacity.clients.asyncio_client import send_load
from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.results.statistics import quantile
from serve_app.capacity.workload.load import LoadSpec
from tests.bench.systems import System, processes, running

_SLOTS, _TOKENS, _RATE = 4, 25, 50.0
_CAPACITY = _SLOTS * _RATE / _TOKENS  # requests per second
_QUIET_S = 15
_PAGE_MIB = 4096 / 2**20
_ENGINE = {
    "kind": "simulated",
    "slots": _SLOTS,
    "simulated": {"decode_tokens_per_s": _RATE, "answer_tokens": 4 * _TOKENS},
}


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one load; times in milliseconds."""

    served: int
    refused: int
    other: int
    tpot_p50: float
    ttft_p50: float
    refused_p99: float


@dataclass(frozen=True, slots=True)
class Claim:
    sentence: str
    holds: bool


@click.command(help=__doc__)
@click.option("--topology", type=click.Choice(["direct", "gateway"]), default="direct")
@click.option("--seconds", default=60, show_default=True, help="Of overload.")
@click.option("--factor", default=5.0, show_default=True, help="Of what the slots can do.")
def main(topology: str, seconds: int, factor: float) -> None:
    console = Console()
    options = {"topology": topology, "queue": 4, "engine": _ENGINE}
    with running(topology, "service", **options) as system:
        claims = asyncio.run(_run(system, seconds, factor, console))
    for claim in claims:
        console.print(f"{'holds ' if claim.holds else 'BROKEN'} {claim.sentence}")
    sys.exit(0 if all(claim.holds for claim in claims) else 1)


async def _run(system: System, seconds: int, factor: float, console: Console) -> list[Claim]:
    await _load(system, 0.5 * _CAPACITY, _QUIET_S)  # warm-up
    before = figures(await _load(system, 0.5 * _CAPACITY, _QUIET_S))
    console.print("before", before)
    memory: list[float] = []
    watch = asyncio.create_task(_watch_memory(system, seconds / 8, memory))
    during = figures(await _load(system, factor * _CAPACITY, seconds))
    watch.cancel()
    console.print("during", during, f"memory {memory} MiB")
    after = figures(await _load(system, 0.5 * _CAPACITY, _QUIET_S))
    console.print("after", after)
    return list(claims(before, during, after, memory))


async def _watch_memory(system: System, every_s: float, memory: list[float]) -> None:
    while True:
        await asyncio.sleep(every_s)
        memory.append(_memory_mib(system))


async def _load(system: System, rate: float, seconds: float) -> list[Record]:
    spec = LoadSpec(
        shape=f"constant:level={rate:g},hold={seconds:g}s",
        prompt_tokens="fixed:10",
        answer_tokens=f"fixed:{_TOKENS}",
        burstiness=0,
    )
    return (await send_load(RequestTarget(system.url), spec))[1]


def figures(records: list[Record]) -> Figures:
    served = [record for record in records if record.ok]
    refused = [record for record in records if record.outcome is ClientOutcome.REJECTED]
    waited = [r.ended - r.started for r in refused if r.ended and r.started]
    return Figures(
        served=len(served),
        refused=len(refused),
        other=len(records) - len(served) - len(refused),
        tpot_p50=1000 * median(record.tpot or 0 for record in served),
        ttft_p50=1000 * median(record.ttft or 0 for record in served),
        refused_p99=1000 * quantile(waited, 0.99),
    )


def claims(before: Figures, during: Figures, after: Figures, memory: list[float]) -> list[Claim]:
    speed = during.tpot_p50 / before.tpot_p50
    again = after.ttft_p50 / before.ttft_p50
    grown = memory[-1] / memory[0] - 1
    return [
        Claim(f"every request is served or refused ({during.other} are neither)", not during.other),
        Claim(f"the admitted keep their speed (x {speed:.2f} per token)", speed < 1.1),
        Claim(
            f"the rest are refused in < 100 ms (p99 {during.refused_p99:.0f} ms)",
            during.refused_p99 < 100,
        ),
        Claim(f"memory stays flat ({100 * grown:+.1f} %)", grown < 0.03),
        Claim(
            f"afterwards it is as fast as before (x {again:.2f} to the first token)", again < 1.25
        ),
    ]


def _memory_mib(system: System) -> float:
    """Return the resident memory of the service's replicas."""
    pages = 0
    for pid, command in processes(system.process.pid).items():
        if command.startswith("ray::ServeReplica"):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * _PAGE_MIB, 1)


if __name__ == "__main__":
    main()
