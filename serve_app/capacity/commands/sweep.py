"""`sweep`: find the limits of one replica."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from serve_app.capacity.clients.chat import Target
from serve_app.capacity.commands import findings
from serve_app.capacity.commands.common import (
    NEW_FOLDER,
    NO,
    QUANTITY,
    Change,
    progress,
    told,
)
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.service_under_test import started
from serve_app.capacity.sweep import measured
from serve_app.capacity.sweep.measured import Measured, Sweep, SweepError
from serve_app.capacity.sweep.sweeper import Effort, Sweeper
from serve_app.capacity.workload.scenario import Inputs


@click.command(
    epilog="Exits with 0 when saturation was seen and a rate that meets the SLO was found, 1 when "
    "not, 2 when it could not run."
)
@click.argument("scenario", default="one-to-six")
@click.option(
    "--set",
    "changes",
    type=Change(),
    multiple=True,
    help="Change the scenario, e.g. load.answer_tokens=64 or service.engine.kind=ollama.",
)
@click.option("--url", help="Sweep this service, which must be one replica; default: start one.")
@click.option("--api-key", envvar="API_KEY", default="", help="For --url. [env: API_KEY]")
@click.option(
    "--slots",
    default="",
    metavar="N,N,…",
    help="Parallel slots to compare (OLLAMA_NUM_PARALLEL, llama.cpp's -np); a service is started "
    "for each. With --url: the one that it has.",
)
@click.option("--slo", help="E.g. ttft_p99=2s,itl_p99=150ms; default: the scenario's.")
@click.option(
    "--warm-up", type=QUANTITY, default="5s", show_default=True, help="Left out of a step."
)
@click.option("--least", type=QUANTITY, default="10s", show_default=True, help="Shortest step.")
@click.option(
    "--most",
    type=QUANTITY,
    default="2m",
    show_default=True,
    help="Longest step. A p99 needs 500 requests in a step: what it is too short for is said.",
)
@click.option(
    "--users", type=click.IntRange(1), default=64, show_default=True, help="Users, at most."
)
@click.option("--out", type=NEW_FOLDER, default="results/sweep", show_default=True)
@click.option("--json", "json", is_flag=True, help="The figures on stdout; seconds, per second.")
@told
def sweep(
    scenario: str,
    changes: Sequence[tuple[str, Any]],
    url: str | None,
    api_key: str,
    slots: str,
    slo: str | None,
    warm_up: float,
    least: float,
    most: float,
    users: int,
    out: Path,
    json: bool,
) -> None:
    """Find the limits of one replica: its speed, its knee, the largest load that meets the SLO.

    SCENARIO is one of `experiment`'s, by name or as a YAML file; of its load the lengths count.
    Users at once double until throughput stops to grow; then arrivals approach, from both sides,
    the highest rate at which every bound is met.
    """
    inputs = Inputs.read(scenario, dict(changes))
    values = _numbers(slots) or [inputs.pool.engine.slots]
    if url and len(values) > 1:
        raise SweepError("a service that runs already has one number of slots: give one")
    asked = _Asked(inputs, Slo.parse(slo or inputs.slo), out, Effort(warm_up, least, most, users))
    # A step says its name as it begins; the bar knows how many there are at most.
    with progress("sweeping", len(values) * asked.effort.most_steps) as done:
        found = asyncio.run(_sweep(asked, values, url, api_key, done))
    findings.tell(found, json)
    sys.exit(0 if all(map(findings.conclusive(found.slo), found.measured)) else NO)


@dataclass(frozen=True, slots=True)
class _Asked:
    inputs: Inputs
    slo: Slo
    out: Path
    effort: Effort


async def _sweep(
    asked: _Asked,
    values: Sequence[int],
    url: str | None,
    api_key: str,
    done: Callable[[], object],
) -> Sweep:
    found: list[Measured] = []
    places: list[list[str]] = []
    for slots in values:
        folder = asked.out / f"slots-{slots}"
        folder.mkdir(parents=True, exist_ok=True)
        async with _service(asked.inputs, slots, folder, url) as address:
            model = asked.inputs.pool.models[0]
            target = Target(base_url=address, model=model, api_key=api_key)
            sweeper = Sweeper(target, asked.inputs.load, asked.slo, folder, asked.effort, _say)
            sweeper.done = lambda _: done()
            found.append(await sweeper.run(slots))
        for _ in range(asked.effort.most_steps - len(sweeper.steps)):
            done()  # it needed fewer
        places.append([f"{folder.name}/{place}" for place in sweeper.places])
        # After each, so that what was found is there whatever comes next.
        result = Sweep(tuple(found), asked.slo, asked.inputs.service, asked.inputs.load)
        measured.write(asked.out, result, places)
    return result


@asynccontextmanager
async def _service(inputs: Inputs, slots: int, folder: Path, url: str | None) -> AsyncIterator[str]:
    if url:
        yield url
        return
    pinned = inputs.model_copy(update={"service": _pinned(inputs.service, slots)})
    async with started(pinned, folder) as there:
        yield there.url


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError as exc:
        raise SweepError(f"{text!r} are no numbers of slots; write 4,8") from exc


def _pinned(service: dict[str, Any], slots: int) -> dict[str, Any]:
    """One replica with so many slots, whatever the load."""
    one = {"min_replicas": 1, "max_replicas": 1, "initial_replicas": 1}
    return {
        **service,
        "engine": {**service.get("engine", {}), "slots": slots},
        "autoscaling": {**service.get("autoscaling", {}), **one},
    }


def _say(step: str) -> None:
    click.echo(step, err=True)
