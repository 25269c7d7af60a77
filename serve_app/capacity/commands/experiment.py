"""The command line: `python -m serve_app.capacity experiment`."""

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from rich.progress import TextColumn, TimeElapsedColumn

from serve_app.capacity.commands.common import (
    CHANGES,
    INTERRUPTED,
    INVALID,
    NO,
    SCENARIO,
    NamedValue,
    as_json,
    bar,
    reports_errors,
)
from serve_app.capacity.experiment import comparison, run
from serve_app.capacity.experiment.comparison import Group
from serve_app.capacity.experiment.experiment import Experiment
from serve_app.capacity.experiment.generators import TOOLS, LoadOptions
from serve_app.capacity.experiment.recording import read_all
from serve_app.capacity.experiment.report import headline
from serve_app.capacity.experiment.run import Show
from serve_app.capacity.experiment.summary import Findings
from serve_app.capacity.results.run_folder import claim
from serve_app.capacity.service_under_test import ServiceUnderTest
from serve_app.capacity.workload.scenario import Scenario, scenario_names


@click.command(
    epilog="Exits with 0 if no request was lost, 1 if requests were lost or truncated, 2 on a "
    "failure, 3 if the load generator's figures are invalid, 130 after Ctrl-C."
)
@SCENARIO
@click.option(
    "--tool",
    type=click.Choice(list(TOOLS)),
    default="locust",
    show_default=True,
    help="Load generator. k6 supports only open loads with even arrivals: no users, bursts, "
    "conversations or traces.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results; default: results/SCENARIO-TIME.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of runs with the same arrivals and lengths.",
)
@CHANGES
@click.option("--url", help="Use the running service at this address instead of starting one.")
@click.option(
    "--dashboard",
    default="http://127.0.0.1:8265",
    show_default=True,
    help="Address of Ray's dashboard, with --url; RAY_AUTH_TOKEN holds its token.",
)
@click.option(
    "--application",
    default="default",
    show_default=True,
    help="Name of the application in Ray Serve, with --url.",
)
@click.option("--deployment", default="", help="Deployment to watch; default: the first pool.")
@click.option("--force", is_flag=True, help="First remove the run that --out holds.")
@click.option("--json", "json", is_flag=True, help="Print the summary as JSON.")
@reports_errors
def experiment(
    scenario_name: str,
    tool: str,
    out: Path | None,
    repeat: int,
    changes: Sequence[tuple[str, Any]],
    url: str | None,
    dashboard: str,
    application: str,
    deployment: str,
    force: bool,
    json: bool,
) -> None:
    """Drive a load, watch Ray Serve scale, and write a report.

    SCENARIO is the name of a scenario of the project, or a YAML file of the same form. Ctrl-C ends
    the load and writes a report of the part that ran; a second Ctrl-C aborts.
    """
    scenario = Scenario.read(scenario_name, dict(changes))
    TOOLS[tool].command(
        LoadOptions(scenario.load, scenario.slo, ""), Path()
    )  # fails before anything starts
    work = Experiment(
        scenario=scenario,
        tool=tool,
        folder=out or _new_folder(scenario_name),
        command=_command("experiment"),
        repeat=repeat,
        attach=_running(url, dashboard) if url else None,
        application=application,
        deployment=deployment,
    )
    claim(work.folder, force=force, instead="give another --out, or --force to remove it")
    with _progress() as show:
        results = asyncio.run(_stoppable(work, show))
    _print(work, results, json)
    sys.exit(_exit_code(results))


experiment.help = f"{experiment.help}\n\n    Scenarios: {', '.join(scenario_names())}."


@click.command(
    epilog="Exits with 0 if no run lost a request, 1 if requests were lost or truncated, 2 on a "
    "failure, 3 if a load generator's figures are invalid, 130 if a run was interrupted."
)
@click.argument("runs", nargs=-1, required=True, type=NamedValue(), metavar="NAME=FOLDER...")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for the report."
)
@click.option(
    "--title",
    default="The same load, other settings",
    show_default=True,
    help="Title of the report.",
)
@click.option(
    "--json", "json", is_flag=True, help="Print the figures as JSON; durations in seconds."
)
@reports_errors
def compare(runs: Sequence[tuple[str, str]], out: Path, title: str, json: bool) -> None:
    """Compare experiments in one report: other settings under the same load.

    FOLDER holds the results of `experiment`: one run or, after --repeat, several.
    """
    claim(out, instead="give another --out for the comparison")
    groups = [Group(name, read_all(Path(folder))) for name, folder in runs]
    comparison.write(out, title, groups, _command("compare"))
    if json:
        as_json(comparison.figures(groups))
    else:
        for before, after in pairwise(groups):
            click.echo(comparison.verdict(before, after).replace("**", ""))
        click.echo(f"Report: {out / 'report.html'}")
    sys.exit(_exit_code([run.findings for group in groups for run in group.runs]))


def _new_folder(scenario_name: str) -> Path:
    return Path("results") / f"{Path(scenario_name).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _running(url: str, dashboard: str) -> ServiceUnderTest:
    return ServiceUnderTest(url, dashboard, os.environ.get("RAY_AUTH_TOKEN", ""))


def _command(name: str) -> str:
    """Return this command line for the report, ready to paste."""
    arguments = sys.argv[1:] if sys.argv[1:2] != [name] else sys.argv[2:]
    return shlex.join(["python", "-m", "serve_app.capacity", name, *arguments])


async def _stoppable(work: Experiment, show: Show) -> list[Findings]:
    """Run the experiment. The first Ctrl-C ends the load, the second the experiment."""
    stop, task = asyncio.Event(), asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    return await work.run(stop, show)


@contextmanager
def _progress() -> Iterator[Show]:
    with bar(TimeElapsedColumn(), TextColumn("{task.fields[state]}")) as progress_bar:
        task = progress_bar.add_task("starting", total=None, state="")
        yield lambda now: progress_bar.update(
            task,
            description=now.phase,
            completed=now.done_s,
            total=now.total_s,
            state=_state(now),
        )


def _state(now: run.Progress) -> str:
    sample = now.sample
    if sample is None:
        return ""
    return (
        f"replicas {sample.running}/{sample.target}  requests {sample.ongoing:.0f}"
        f"+{sample.queued:.0f}  answered {now.answered}"
    )


def _print(work: Experiment, results: Sequence[Findings], json: bool) -> None:
    if json:
        as_json([result.as_json() for result in results])
    else:
        _print_headlines(work, results)


def _print_headlines(work: Experiment, results: Sequence[Findings]) -> None:
    for result in results:
        click.echo(headline(result).replace("**", ""))
        for reason in result.invalid:
            click.echo(f"INVALID: {reason}")
    click.echo(f"Report: {work.folder / 'report.html'}")


def _exit_code(results: Sequence[Findings]) -> int:
    if any(result.interrupted for result in results):
        return INTERRUPTED
    if any(result.invalid for result in results):
        return INVALID
    return NO if any(result.lost for result in results) else 0
