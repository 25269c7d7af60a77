"""`sweep`: find the limits of one replica."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.commands import sweep_report
from serve_app.capacity.commands.common import (
    CHANGES,
    NEW_FOLDER,
    NO,
    QUANTITY,
    SCENARIO,
    progress,
    reports_errors,
)
from serve_app.capacity.results.run_folder import claim
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.service_under_test import started
from serve_app.capacity.sweep import measured
from serve_app.capacity.sweep.measured import Measured, Sweep, SweepError
from serve_app.capacity.sweep.report import report
from serve_app.capacity.sweep.sweeper import StepBudget, Sweeper
from serve_app.capacity.workload.scenario import Scenario


@click.command(
    epilog="Exits with 0 if the sweep reached saturation and found a rate that meets the SLO, 1 if "
    "not, 2 on a failure."
)
@SCENARIO
@CHANGES
@click.option(
    "--url",
    help="Sweep the service at this address, which must have one replica; default: start one.",
)
@click.option(
    "--api-key", envvar="API_KEY", default="", help="Key of the service at --url. [env: API_KEY]"
)
@click.option(
    "--slots",
    default="",
    metavar="N,N,…",
    help="Numbers of parallel slots to compare (OLLAMA_NUM_PARALLEL, llama.cpp's -np); the "
    "command starts a service for each. With --url: the slots of that service.",
)
@click.option("--slo", help="Objectives, e.g. ttft_p99=2s,itl_p99=150ms; default: the scenario's.")
@click.option(
    "--warm-up",
    type=QUANTITY,
    default="5s",
    show_default=True,
    help="Time at the start of each step whose requests are not counted.",
)
@click.option(
    "--min-step", "--least", type=QUANTITY, default="10s", show_default=True, help="Shortest step."
)
@click.option(
    "--max-step",
    "--most",
    type=QUANTITY,
    default="2m",
    show_default=True,
    help="Longest step. A p99 needs 500 requests in a step; the report names bounds with fewer.",
)
@click.option(
    "--users",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Maximum number of users.",
)
@click.option(
    "--out",
    type=NEW_FOLDER,
    default="results/sweep",
    show_default=True,
    help="Folder for the results.",
)
@click.option(
    "--resume", is_flag=True, help="Continue the sweep that --out holds, with the same options."
)
@click.option("--force", is_flag=True, help="First remove the run that --out holds.")
@click.option(
    "--json", "json", is_flag=True, help="Print the figures as JSON, in seconds and per second."
)
@reports_errors
def sweep(
    scenario_name: str,
    changes: Sequence[tuple[str, Any]],
    url: str | None,
    api_key: str,
    slots: str,
    slo: str | None,
    warm_up: float,
    min_step: float,
    max_step: float,
    users: int,
    out: Path,
    resume: bool,
    force: bool,
    json: bool,
) -> None:
    """Find the limits of one replica: its speed, its knee, the largest load that meets the SLO.

    SCENARIO is a scenario of `experiment`, by name or as a YAML file; of its load only the
    lengths of prompts and answers are used. The number of users doubles until throughput stops
    growing; then a binary search finds the highest arrival rate that meets every bound.
    """
    scenario = Scenario.read(scenario_name, dict(changes))
    values = _numbers(slots) or [scenario.pool.engine.slots]
    if url and len(values) > 1:
        raise SweepError("--slots must be one number with --url: its slots are fixed")
    if min_step > max_step:
        raise SweepError(f"--min-step ({min_step:g} s) is above --max-step ({max_step:g} s)")
    for value in values:  # before anything starts
        scenario.with_service(_pinned(scenario.service, value))
    plan = _SweepPlan(
        scenario,
        Slo.parse(slo or scenario.slo),
        out,
        StepBudget(warm_up, min_step, max_step, users),
        resume,
    )
    finished = _finished(plan) if resume else _begin(plan, force)
    # The bar counts the maximum number of steps; a step prints its name at its start.
    with progress("sweeping", len(values) * plan.budget.max_steps) as done:
        results = asyncio.run(_sweep(plan, finished, values, url, api_key, done))
    reports = [report(measurement, results.slo) for measurement in results.measured]
    sweep_report.show(reports, json)
    sys.exit(0 if all(report.conclusive for report in reports) else NO)


@dataclass(frozen=True, slots=True)
class _SweepPlan:
    scenario: Scenario
    slo: Slo
    out: Path
    budget: StepBudget
    resume: bool

    def sweep(self, measurements: Sequence[Measured] = ()) -> Sweep:
        service, load = self.scenario.service, self.scenario.load
        return Sweep(tuple(measurements), self.slo, service, load, asdict(self.budget))


def _begin(plan: _SweepPlan, force: bool) -> set[int | None]:
    """Claim the folder of a new sweep, with no finished slots. Raises FolderInUse."""
    how = "give another --out, --resume to go on with a sweep, or --force to remove it"
    claim(plan.out, force=force, instead=how)
    plan.out.mkdir(parents=True, exist_ok=True)
    measured.write(plan.out, plan.sweep(), [])
    return set()


def _finished(plan: _SweepPlan) -> set[int | None]:
    """Read which slots are finished. Raises SweepError if the options differ."""
    before, now = measured.read_begun(plan.out), plan.sweep()
    for name in ("service", "load", "slo", "budget"):
        if getattr(before, name) != getattr(now, name):
            raise SweepError(
                f"{plan.out} holds a sweep with another {name}: --resume needs the same options"
            )
    return {measurement.slots for measurement in before.measured}


async def _sweep(
    plan: _SweepPlan,
    finished: set[int | None],
    values: Sequence[int],
    url: str | None,
    api_key: str,
    done: Callable[[], object],
) -> Sweep:
    measurements: list[Measured] = []
    places: list[list[str]] = []
    for slots in values:
        folder = plan.out / f"slots-{slots}"
        folder.mkdir(parents=True, exist_ok=True)
        # The steps of finished slots are read, not measured: they need no service.
        known_url = "nowhere" if slots in finished else url
        async with _service(plan.scenario, slots, folder, known_url) as address:
            model = plan.scenario.pool.models[0]
            target = RequestTarget(base_url=address, model=model, api_key=api_key)
            sweeper = Sweeper(
                target, plan.scenario.load, plan.slo, folder, plan.budget, _print_step
            )
            sweeper.done, sweeper.resume = lambda _: done(), plan.resume
            measurements.append(await sweeper.run(slots))
        for _ in range(plan.budget.max_steps - len(sweeper.steps)):
            done()  # steps that were not needed
        places.append([f"{folder.name}/{place}" for place in sweeper.places])
        # After each measurement, so that a failure of the next one keeps it.
        measured.write(plan.out, plan.sweep(measurements), places)
    return plan.sweep(measurements)


@asynccontextmanager
async def _service(
    scenario: Scenario, slots: int, folder: Path, url: str | None
) -> AsyncIterator[str]:
    if url:
        yield url
        return
    pinned = scenario.with_service(_pinned(scenario.service, slots))
    async with started(pinned, folder) as service:
        yield service.url


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError as exc:
        raise SweepError(f"{text!r} is not a list of numbers of slots; write e.g. 4,8") from exc


def _pinned(service: dict[str, Any], slots: int) -> dict[str, Any]:
    """Change the settings of a service to one replica with so many slots."""
    one = {"min_replicas": 1, "max_replicas": 1, "initial_replicas": 1}
    return {
        **service,
        "engine": {**service.get("engine", {}), "slots": slots},
        "autoscaling": {**service.get("autoscaling", {}), **one},
    }


def _print_step(step: str) -> None:
    click.echo(step, err=True)
