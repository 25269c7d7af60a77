"""`sweep`: find the limits of one replica."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from serve_app.capacity.clients.chat import Target
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
    epilog="Exits with 0 when saturation was seen and a rate that meets the SLO was found, 1 when "
    "not, 2 when it could not run."
)
@SCENARIO
@CHANGES
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
@click.option(
    "--min-step", "--least", type=QUANTITY, default="10s", show_default=True, help="Shortest step."
)
@click.option(
    "--max-step",
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
@click.option(
    "--resume", is_flag=True, help="Go on with the sweep that --out holds: the same options."
)
@click.option("--force", is_flag=True, help="Remove the files of a run that --out holds, first.")
@click.option("--json", "json", is_flag=True, help="The figures on stdout; seconds, per second.")
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

    SCENARIO is one of `experiment`'s, by name or as a YAML file; of its load the lengths count.
    Users at once double until throughput stops to grow; then arrivals approach, from both sides,
    the highest rate at which every bound is met.
    """
    scenario = Scenario.read(scenario_name, dict(changes))
    values = _numbers(slots) or [scenario.pool.engine.slots]
    if url and len(values) > 1:
        raise SweepError("a service that runs already has one number of slots: give one")
    plan = _SweepPlan(
        scenario,
        Slo.parse(slo or scenario.slo),
        out,
        StepBudget(warm_up, min_step, max_step, users),
        resume,
    )
    finished = _finished(plan) if resume else _begin(plan, force)
    # A step says its name as it begins; the bar knows how many there are at most.
    with progress("sweeping", len(values) * plan.budget.max_steps) as done:
        found = asyncio.run(_sweep(plan, finished, values, url, api_key, done))
    reports = [report(measurement, found.slo) for measurement in found.measured]
    sweep_report.show(reports, json)
    sys.exit(0 if all(one.conclusive for one in reports) else NO)


@dataclass(frozen=True, slots=True)
class _SweepPlan:
    scenario: Scenario
    slo: Slo
    out: Path
    budget: StepBudget
    resume: bool

    def sweep(self, found: Sequence[Measured] = ()) -> Sweep:
        service, load = self.scenario.service, self.scenario.load
        return Sweep(tuple(found), self.slo, service, load, asdict(self.budget))


def _begin(plan: _SweepPlan, force: bool) -> set[int | None]:
    """No slots are finished. Raises FolderInUse."""
    how = "give another --out, --resume to go on with a sweep, or --force to remove it"
    claim(plan.out, force=force, instead=how)
    plan.out.mkdir(parents=True, exist_ok=True)
    measured.write(plan.out, plan.sweep(), [])
    return set()


def _finished(plan: _SweepPlan) -> set[int | None]:
    """The slots whose sweep is finished. Raises SweepError where something else was swept."""
    before, now = measured.read_begun(plan.out), plan.sweep()
    for name in ("service", "load", "slo", "budget"):
        if getattr(before, name) != getattr(now, name):
            raise SweepError(
                f"{plan.out} holds a sweep with another {name}: --resume needs the same options"
            )
    return {each.slots for each in before.measured}


async def _sweep(
    plan: _SweepPlan,
    finished: set[int | None],
    values: Sequence[int],
    url: str | None,
    api_key: str,
    done: Callable[[], object],
) -> Sweep:
    found: list[Measured] = []
    places: list[list[str]] = []
    for slots in values:
        folder = plan.out / f"slots-{slots}"
        folder.mkdir(parents=True, exist_ok=True)
        there = "nowhere" if slots in finished else url  # its steps are read, not measured
        async with _service(plan.scenario, slots, folder, there) as address:
            model = plan.scenario.pool.models[0]
            target = Target(base_url=address, model=model, api_key=api_key)
            sweeper = Sweeper(target, plan.scenario.load, plan.slo, folder, plan.budget, _say)
            sweeper.done, sweeper.resume = lambda _: done(), plan.resume
            found.append(await sweeper.run(slots))
        for _ in range(plan.budget.max_steps - len(sweeper.steps)):
            done()  # it needed fewer
        places.append([f"{folder.name}/{place}" for place in sweeper.places])
        # After each, so that what was found is there whatever comes next.
        measured.write(plan.out, plan.sweep(found), places)
    return plan.sweep(found)


@asynccontextmanager
async def _service(
    scenario: Scenario, slots: int, folder: Path, url: str | None
) -> AsyncIterator[str]:
    if url:
        yield url
        return
    pinned = scenario.model_copy(update={"service": _pinned(scenario.service, slots)})
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
