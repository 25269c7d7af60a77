"""Options that several commands share, and the connection that they describe."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from kuberay.client import RayServiceApi
from kuberay.status.waiting import WaitLimits
from serve_app.quantities import quantity

Command = Callable[..., Any]


class Duration(click.ParamType[float]):
    """Reads `90`, `90s`, `5m` or `1h` in seconds."""

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
    """The cluster to work on; `api` connects to it."""

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
    "--dry-run", is_flag=True, help="Print the requests and let the server validate them."
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
_wait = click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait until the whole service is ready.",
)
_patience = click.option(
    "--patience",
    type=Duration(),
    default="5m",
    show_default=True,
    help="How long one problem may last: a pod without a node, a slow image or model.",
)


def timeout_option(default: str = "30m") -> Callable[[Command], Command]:
    return click.option(
        "--timeout",
        type=Duration(),
        default=default,
        show_default=True,
        help="How long to wait in all.",
    )


@dataclass(frozen=True)
class Sending:
    """The way to send a change: as a dry run or not, with confirmation or not."""

    dry_run: bool
    yes: bool

    @property
    def is_confirmed(self) -> bool:
        return self.yes or self.dry_run


def sending(command: Command) -> Command:
    """Add `--dry-run` and `--yes`, which the command gets as `sending`."""

    @wraps(command)
    def with_sending(*args: Any, dry_run: bool, yes: bool, **options: Any) -> Any:
        return command(*args, sending=Sending(dry_run, yes), **options)

    return _yes(dry_run_option(with_sending))


def waiting(command: Command) -> Command:
    """Add `--patience` and `--timeout`, which the command gets as `bounds`."""

    @wraps(command)
    def with_bounds(*args: Any, patience: float, timeout: float, **options: Any) -> Any:
        return command(*args, bounds=WaitLimits(patience, timeout), **options)

    return _patience(timeout_option()(with_bounds))


def awaiting(command: Command) -> Command:
    """Add the options of `waiting`, and `--no-wait`, with which `bounds` is None."""

    @wraps(command)
    def with_wait(*args: Any, wait: bool, bounds: WaitLimits, **options: Any) -> Any:
        return command(*args, bounds=bounds if wait else None, **options)

    return _wait(waiting(with_wait))
