"""The command line: `python -m serve_app.capacity experiment`."""

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import orjson
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from serve_app.capacity.experiment import comparison, run
from serve_app.capacity.experiment.comparison import Group
from serve_app.capacity.experiment.experiment import Attach, Experiment
from serve_app.capacity.experiment.generators import TOOLS, Load
from serve_app.capacity.experiment.recording import read_all
from serve_app.capacity.experiment.report import headline
from serve_app.capacity.experiment.run import Show
from serve_app.capacity.experiment.summary import Findings
from serve_app.capacity.workload.scenario import Inputs, names
from serve_app.errors import ServiceError

_LOST, _FAILED, _INVALID, _INTERRUPTED = 1, 2, 3, 130


@click.command(
    epilog="Exits with 0 when nothing was lost, 1 when requests were lost or truncated, "
    "2 when it could not run, 3 when the load generator's figures are invalid, 130 after Ctrl-C."
)
@click.argument("scenario", default="one-to-six")
@click.option(
    "--tool",
    type=click.Choice(list(TOOLS)),
    default="locust",
    show_default=True,
    help="Load generator. k6's arrivals are open and even: it refuses users, bursts, "
    "conversations and traces.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder; default results/SCENARIO-TIME."
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs with the same arrivals and lengths.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change the scenario, e.g. service.autoscaling.max_replicas=3 or slo=ttft_p95=1s.",
)
@click.option("--url", help="Attach to a service that runs, instead of starting one.")
@click.option(
    "--dashboard",
    default="http://127.0.0.1:8265",
    show_default=True,
    help="Ray's dashboard of that service; its token in RAY_AUTH_TOKEN.",
)
@click.option("--application", default="default", show_default=True, help="In Ray Serve.")
@click.option("--deployment", default="", help="To watch; default: the first pool.")
@click.option("--json", "as_json", is_flag=True, help="The summary on stdout.")
def experiment(
    scenario: str,
    tool: str,
    out: Path | None,
    repeat: int,
    changes: Sequence[str],
    url: str | None,
    dashboard: str,
    application: str,
    deployment: str,
    as_json: bool,
) -> None:
    """Drive a load, watch Ray Serve scale, and write a report.

    SCENARIO is the name of one that comes with the project, or a YAML file of the same form.
    Ctrl-C ends the load and writes the report of what was seen; once more gives up.
    """
    try:
        inputs = Inputs.read(scenario, dict(map(_change, changes)))
        TOOLS[tool].command(Load(inputs.load, inputs.slo, ""), Path())  # before anything starts
        work = Experiment(
            inputs=inputs,
            tool=tool,
            folder=out
            or Path("results") / f"{Path(scenario).stem}-{time.strftime('%Y%m%d-%H%M%S')}",
            command=_command("experiment"),
            repeat=repeat,
            attach=Attach(url, dashboard, os.environ.get("RAY_AUTH_TOKEN", "")) if url else None,
            application=application,
            deployment=deployment,
        )
        found = _run(work)
    except ServiceError as exc:
        click.echo(f"Error: {exc}", err=True)
        sys.exit(_FAILED)
    except asyncio.CancelledError:
        sys.exit(_INTERRUPTED)
    _tell(work, found, as_json)
    sys.exit(_code(found))


experiment.help = f"{experiment.help}\n\n    Scenarios: {', '.join(names())}."


@click.command(
    epilog="Exits with 0 when nothing was lost in any run, 1 when requests were lost or truncated, "
    "2 when it could not run, 3 when a load generator's figures are invalid, 130 when a run was "
    "ended early."
)
@click.argument("runs", nargs=-1, required=True, metavar="NAME=FOLDER...")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the report.")
@click.option("--title", default="The same load, other settings", show_default=True)
@click.option(
    "--json", "as_json", is_flag=True, help="The figures on stdout; durations in seconds."
)
def compare(runs: Sequence[str], out: Path, title: str, as_json: bool) -> None:
    """Put experiments side by side: other settings under the same load.

    Each FOLDER is one that `experiment` has written, of one run or, after --repeat, of several.
    """
    try:
        groups = [Group(name, read_all(Path(folder))) for name, folder in map(_pair, runs)]
        comparison.write(out, title, groups, _command("compare"))
    except ServiceError as exc:
        click.echo(f"Error: {exc}", err=True)
        sys.exit(_FAILED)
    if as_json:
        _write(comparison.figures(groups))
    else:
        _judge(groups, out)
    sys.exit(_code([run.findings for group in groups for run in group.runs]))


def _judge(groups: Sequence[Group], out: Path) -> None:
    for before, after in pairwise(groups):
        click.echo(comparison.verdict(before, after).replace("**", ""))
    click.echo(f"Report: {out / 'report.html'}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


def _change(text: str) -> tuple[str, Any]:
    name, value = _pair(text)
    return name, yaml.safe_load(value)


def _command(name: str) -> str:
    """As it can be pasted."""
    given = sys.argv[1:] if sys.argv[1:2] != [name] else sys.argv[2:]
    return shlex.join(["python", "-m", "serve_app.capacity", name, *given])


def _run(work: Experiment) -> list[Findings]:
    with _progress() as show:
        return asyncio.run(_stoppable(work, show))


async def _stoppable(work: Experiment, show: Show) -> list[Findings]:
    """Ctrl-C once ends the load, twice everything."""
    stop, task = asyncio.Event(), asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    return await work.run(stop, show)


@contextmanager
def _progress() -> Any:
    columns = (
        *(TextColumn("{task.description:>16}"), BarColumn(), TimeElapsedColumn()),
        TextColumn("{task.fields[seen]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=None, seen="")
        yield lambda now: _show(bars, task, now)


def _show(bars: Progress, task: TaskID, now: run.Progress) -> None:
    sample = now.sample
    seen = ""
    if sample:
        seen = (
            f"replicas {sample.running}/{sample.target}  requests {sample.ongoing:.0f}"
            f"+{sample.queued:.0f}  answered {now.answered}"
        )
    bars.update(task, description=now.phase, completed=now.done_s, total=now.total_s, seen=seen)


def _tell(work: Experiment, found: Sequence[Findings], as_json: bool) -> None:
    if as_json:
        _write([each.as_json() for each in found])
        return
    for each in found:
        click.echo(headline(each).replace("**", ""))
        for reason in each.invalid:
            click.echo(f"INVALID: {reason}")
    click.echo(f"Report: {work.folder / 'report.html'}")


def _write(value: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(value))


def _code(found: Sequence[Findings]) -> int:
    if any(each.interrupted for each in found):
        return _INTERRUPTED
    if any(each.invalid for each in found):
        return _INVALID
    return _LOST if any(each.lost for each in found) else 0
