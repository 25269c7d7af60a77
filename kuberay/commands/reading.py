"""Commands that change nothing: status, wait, logs."""

import dataclasses
import json
import os
import re
import sys
from contextlib import suppress

import click
from rich.console import Console
from rich.live import Live

from kuberay import logs
from kuberay.client import RayServiceApi, Status
from kuberay.commands import table
from kuberay.commands.options import Cluster, name_argument, waiting
from kuberay.errors import NotFound
from kuberay.status import leftovers
from kuberay.status.observed import Observed
from kuberay.status.waiting import WaitLimits
from kuberay.status.watched_scaling import KEY_VARIABLE

# A cause that contains its own duration must not count as new every second.
_SECONDS = re.compile(r"\d+ s\b")


@click.command(short_help="Show applications and pods, and what is wrong.")
@name_argument
@click.option("-w", "--watch", is_flag=True, help="Show a live table until Ctrl-C.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Format of the status.",
)
@click.pass_obj
def status(cluster: Cluster, name: str, watch: bool, output: str) -> None:
    """Show applications and pods, what is wrong, and what to do about it.

    With an admin key of the service in the variable LLM_ADMIN_KEY, it also shows why each pool has
    its replicas. The exit code is 1 if the RayService does not exist.
    """
    api = cluster.api()
    if watch:
        _watch(api, name)
        return
    result = api.get_ray_service_status(name, os.environ.get(KEY_VARIABLE, ""))
    if result.view.service is None:
        raise _absent(name, result.view, api.objects.namespace)
    if output == "json":
        click.echo(json.dumps(dataclasses.asdict(result), default=str, indent=2))
    else:
        console = Console()
        # Soft wrapping leaves a long command on one line, to be copied.
        console.print(table.summary(name, result), soft_wrap=True)
        console.print(table.details(result))


def _absent(name: str, view: Observed, namespace: str) -> NotFound:
    remaining = [pod for pod in view.pods if pod.is_ray]
    rest = "".join(f"; RayCluster {cluster.name} is being deleted" for cluster in view.clusters)
    rest += f"; still there: {leftovers.sentence(remaining, view.at)}" if remaining else ""
    return NotFound(f"RayService {name} does not exist in namespace {namespace}{rest}", 404)


def _watch(api: RayServiceApi, name: str) -> None:
    live = Live(auto_refresh=False, screen=sys.stdout.isatty())
    with suppress(KeyboardInterrupt), live:
        for update in api.watch_ray_service_status(name):
            live.update(table.render(name, update), refresh=True)


@click.command(short_help="Wait until the present spec serves completely.")
@name_argument
@waiting
@click.pass_obj
def wait(cluster: Cluster, name: str, bounds: WaitLimits) -> None:
    """Wait until the present spec serves completely.

    \b
    Exit codes: 0 the service is ready
                3 it can't recover: DEPLOY_FAILED, an invalid spec, no such RayService
                4 one problem lasted longer than --patience
                5 the service was not ready within --timeout
                1 any other error, for example no access
    """
    wait_for(cluster.api(), name, bounds)


def wait_for(api: RayServiceApi, name: str, bounds: WaitLimits, replaces: bool = False) -> None:
    """Wait, and print every new problem once. Raises WaitError.

    `replaces` says that the last change replaces the replicas.
    """
    last_line = ""

    def show(current: Status) -> None:
        nonlocal last_line
        diagnosis = current.diagnosis
        line = f"{diagnosis.state}"
        if diagnosis.cause:
            line += f": {diagnosis.cause}\n  → {diagnosis.advice}"
        if (unclocked := _SECONDS.sub("", line)) != last_line:
            last_line = unclocked
            click.echo(line, err=True)

    current = api.wait_until_ray_service_running(name, bounds, show, replaces)
    endpoints = current.view.service.endpoints if current.view.service else 0
    click.echo(f"RayService {name} is ready, endpoints: {endpoints}")


@click.command(name="logs", short_help="Show logs of the head, the workers or the engines.")
@click.argument("which", type=click.Choice(["head", "workers", "sidecar"]))
@name_argument
@click.option("-c", "--container", default="", help="Show another container of these pods.")
@click.option(
    "-f", "--follow", is_flag=True, help="Follow the logs, also of pods that start later."
)
@click.option(
    "--tail", type=click.IntRange(min=0), help="Show only this many last lines of each container."
)
@click.option("-p", "--previous", is_flag=True, help="Show the run before the last restart.")
@click.pass_obj
def show_logs(
    cluster: Cluster,
    which: str,
    name: str,
    container: str,
    follow: bool,
    tail: int | None,
    previous: bool,
) -> None:
    """Show logs of the head, of the workers, or of the engines beside them."""
    objects = cluster.api().objects
    options = {"tailLines": str(tail)} if tail is not None else {}
    if previous:
        options["previous"] = "true"
    selection = logs.Selection(which, container)
    if follow:
        lines = logs.Follower(objects, name, selection, options).lines()
    else:
        lines = logs.read(objects, name, selection, options)
    with suppress(KeyboardInterrupt):
        for line in lines:
            click.echo(f"{line.source.pod} {line.text}")
