"""What the commands share: options, progress, tables, and how errors end."""

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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from serve_app.capacity.workload.text import number
from serve_app.errors import ServiceError

NO = 1  # the command has an answer, and it is not the one hoped for

Command = Callable[..., Any]


class Problem(click.ClickException):
    """The command could not do its work."""

    exit_code = 2


def told(command: Command) -> Command:
    """Errors of ours are sentences on stderr, not tracebacks."""

    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except ServiceError as exc:
            raise Problem(str(exc)) from exc

    return wrapped


class Quantity(click.ParamType[float]):
    """`30s`, `5m`, `12/s`, `90%`: seconds, per second, or a share."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return float(value) if isinstance(value, int | float) else number(value)
        except ServiceError as exc:
            self.fail(str(exc), param, ctx)


QUANTITY = Quantity()
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Change(click.ParamType[tuple[str, Any]]):
    """`service.autoscaling.max_replicas=40`: a dotted name and a YAML value."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, item = value.partition("=")
        if not equals:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, yaml.safe_load(item)


def scenario_options(command: Command) -> Command:
    """Which service under which load, as for `experiment`."""
    for option in reversed(
        (
            click.argument("scenario", default="one-to-six"),
            click.option(
                "--set",
                "changes",
                type=Change(),
                multiple=True,
                help="Change the scenario, e.g. service.autoscaling.max_replicas=40.",
            ),
            click.option(
                "--trace", type=FILE, help="Replay this file (Azure's CSV, Mooncake's JSONL)."
            ),
            click.option(
                "--sweep",
                type=FOLDER,
                help="Speed of a replica as a sweep has fitted it; default: as the scenario "
                "declares it (service.engine.simulated).",
            ),
            click.option(
                "--startup",
                "start",
                metavar="TIME",
                help="From the decision to a replica that serves: 30s, uniform:least=20s,most=60s "
                "or lognormal:median=30s,p95=60s; default: as the scenario declares it.",
            ),
            click.option(
                "--slo", help="E.g. ttft_p99=2s,error_rate=0.1%; default: the scenario's."
            ),
            click.option(
                "--seeds",
                type=click.IntRange(1),
                default=3,
                show_default=True,
                help="Runs of each candidate, with other arrivals (where they are drawn), start-up "
                "times and routing.",
            ),
        )
    ):
        command = option(command)
    return command


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar on stderr; call what it yields after each piece of work."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda: bars.advance(task)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column is text, the others are figures."""
    shown = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        shown.add_row(*row)
    # Wide enough when it is not a terminal that is written to.
    Console(width=None if sys.stdout.isatty() else 120).print(shown)


def as_json(value: Any) -> None:
    sys.stdout.buffer.write(
        orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
