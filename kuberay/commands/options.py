"""Options that several commands share, and the way from them to a cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from kuberay.client import RayServiceApi
from kuberay.status.waiting import Limits
from serve_app.quantities import quantity

Command = Callable[..., Any]


class Duration(click.ParamType[float]):
    """`90`, `90s`, `5m` or `1h`; a value in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float | int):
            return float(value)
        try:
            return quantity(value)
        except ValueError:
            self.fail(f"{value!r} is not a duration: write 90, 90s, 5m or 1h", param, ctx)


@dataclass(frozen=True)
class Cluster:
    """Where to go; the connection is made by the command that needs it."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None
    request_timeout_s: float

    def api(self, dry_run: bool = False) -> RayServiceApi:
        return RayServiceApi.connect(
            self.kubeconfig,
            self.context,
            self.namespace,
            self.request_timeout_s,
            click.echo if dry_run else None,
        )


name_argument = click.argument("name", default="llm", metavar="[NAME]")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print what would be sent and let the server check it."
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_wait = click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Until all of it serves."
)
_patience = click.option(
    "--patience",
    type=Duration(),
    default="5m",
    show_default=True,
    help="Bound of one and the same hindrance: no node, an image or a model on its way.",
)


def timeout_option(default: str = "30m") -> Callable[[Command], Command]:
    return click.option(
        "--timeout", type=Duration(), default=default, show_default=True, help="Bound of it all."
    )


@dataclass(frozen=True)
class Sending:
    """How a change is sent: rehearsed or for real, and asked for or not."""

    dry_run: bool
    yes: bool

    @property
    def is_sure(self) -> bool:
        return self.yes or self.dry_run


def sending(command: Command) -> Command:
    """`--dry-run` and `--yes`: the command gets `sending`, Sending."""

    @wraps(command)
    def with_sending(*args: Any, dry_run: bool, yes: bool, **options: Any) -> Any:
        return command(*args, sending=Sending(dry_run, yes), **options)

    return _yes(dry_run_option(with_sending))


def waiting(command: Command) -> Command:
    """`--patience` and `--timeout`: the command gets `bounds`, Limits."""

    @wraps(command)
    def with_bounds(*args: Any, patience: float, timeout: float, **options: Any) -> Any:
        return command(*args, bounds=Limits(patience, timeout), **options)

    return _patience(timeout_option()(with_bounds))


def awaiting(command: Command) -> Command:
    """`waiting` and `--no-wait`, with which `bounds` is None."""

    @wraps(command)
    def with_wait(*args: Any, wait: bool, bounds: Limits, **options: Any) -> Any:
        return command(*args, bounds=bounds if wait else None, **options)

    return _wait(waiting(with_wait))
