"""Options that several commands share, and the way from them to a cluster."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from kuberay.client import RayServiceApi
from kuberay.waiting import Limits

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

Command = Callable[..., Any]


class Duration(click.ParamType[float]):
    """`90`, `90s`, `5m` or `1h`; a value in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float | int):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value)
        if not found:
            self.fail(f"{value!r} is no duration like 90, 90s, 5m or 1h", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


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
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def waiting_options(command: Command) -> Command:
    """`--patience` and `--timeout`."""
    patience = click.option(
        "--patience",
        type=Duration(),
        default="5m",
        show_default=True,
        help="Bound of one and the same hindrance: no node, an image or a model on its way.",
    )
    timeout = click.option(
        "--timeout", type=Duration(), default="30m", show_default=True, help="Bound of it all."
    )
    return patience(timeout(command))


def wait_option(command: Command) -> Command:
    wait = click.option(
        "--wait/--no-wait", default=True, show_default=True, help="Until all of it serves."
    )
    return wait(waiting_options(command))


def limits(patience: float, timeout: float) -> Limits:
    return Limits(patience_s=patience, timeout_s=timeout)
