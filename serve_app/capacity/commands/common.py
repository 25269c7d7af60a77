"""The options, progress bars, tables, errors and exit codes that the commands share."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click
import orjson
import yaml
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from serve_app.capacity.workload.text import parse_number
from serve_app.errors import ServiceError

# Exit codes
NO = 1  # the result is negative
FAILED = 2  # there is no result
INVALID = 3  # the load generator's figures must not be used
INTERRUPTED = 130  # Ctrl-C

Command = Callable[..., Any]


class Problem(click.ClickException):
    """A failure that is printed as one sentence."""

    exit_code = FAILED


def reports_errors(command: Command) -> Command:
    """Print a ServiceError as one sentence on stderr and exit with FAILED."""

    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except ServiceError as exc:
            raise Problem(str(exc)) from exc
        except asyncio.CancelledError:
            sys.exit(INTERRUPTED)

    return wrapped


class Quantity(click.ParamType[float]):
    """Parses `30s`, `5m`, `12/s` or `90%` as seconds, per second or a share."""

    name = "quantity"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return float(value) if isinstance(value, int | float) else parse_number(value)
        except ServiceError as exc:
            self.fail(str(exc), param, ctx)


QUANTITY = Quantity()
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class NamedValue(click.ParamType[tuple[str, str]]):
    """Parses `name=value`."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, item = value.partition("=")
        if not equals:
            self.fail(f"{value!r} has no `=`; write NAME=VALUE", param, ctx)
        return name, item


class Change(NamedValue):
    """Parses `service.autoscaling.max_replicas=40`: a dotted name and a YAML value."""

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        name, item = super().convert(value, param, ctx)
        return name, yaml.safe_load(item) if isinstance(item, str) else item


SCENARIO = click.argument("scenario_name", metavar="[SCENARIO]", default="one-to-six")
CHANGES = click.option(
    "--set",
    "changes",
    type=Change(),
    multiple=True,
    help="Change the scenario, e.g. load.max_prompt_tokens=4000 or slo=ttft_p95=1s.",
)


def scenario_options(command: Command) -> Command:
    """Add the options that name a service and a load, as for `experiment`."""
    for option in reversed(
        (
            SCENARIO,
            CHANGES,
            click.option(
                "--trace",
                type=FILE,
                help="Replay a recorded trace (Azure's CSV or Mooncake's JSONL).",
            ),
            click.option(
                "--sweep",
                type=FOLDER,
                help="Take the speed of a replica from the results of `sweep`; default: from the "
                "scenario's service.engine.simulated.",
            ),
            click.option(
                "--startup",
                "start",
                metavar="TIME",
                help="Time from the decision to start a replica until it serves: 30s, "
                "uniform:min=20s,max=60s or lognormal:median=30s,p95=60s; default: the "
                "scenario's.",
            ),
            click.option(
                "--slo",
                help="Objectives, e.g. ttft_p99=2s,error_rate=0.1%; default: the scenario's.",
            ),
            click.option(
                "--seeds",
                type=click.IntRange(1),
                default=3,
                show_default=True,
                help="Runs of each candidate. A seed changes start-up times, routing and, unless a "
                "trace is replayed, arrivals.",
            ),
        )
    ):
        command = option(command)
    return command


@contextmanager
def bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """Show a progress bar on stderr, gone when it ends."""
    shown = (TextColumn("{task.description}"), BarColumn(), *columns)
    with Progress(*shown, console=Console(stderr=True), transient=True) as progress_bar:
        yield progress_bar


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of `total` pieces of work."""
    with bar(MofNCompleteColumn(), TimeRemainingColumn()) as progress_bar:
        task = progress_bar.add_task(label, total=total)
        yield lambda: progress_bar.advance(task)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose others are figures."""
    shown = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        shown.add_row(*row)
    # A width for files and pipes, which have none.
    Console(width=None if sys.stdout.isatty() else 120).print(shown)


def as_json(value: Any) -> None:
    sys.stdout.buffer.write(
        orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
