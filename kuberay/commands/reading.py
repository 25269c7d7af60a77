"""Commands that change nothing: status, wait, logs."""

import dataclasses
import json
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
from kuberay.status.waiting import Limits

# A cause that counts how long it has lasted is no new one each second.
_SECONDS = re.compile(r"\d+ s\b")


@click.command()
@name_argument
@click.option("-w", "--watch", is_flag=True, help="A live table; Ctrl-C ends it.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def status(cluster: Cluster, name: str, watch: bool, output: str) -> None:
    """Applications, pods, and in one line what is wrong and what to do.

    Exits with 1 where there is no such RayService.
    """
    api = cluster.api()
    if watch:
        return _watch(api, name)
    found = api.get_ray_service_status(name)
    if found.view.service is None:
        raise _absent(name, found.view, api.objects.namespace)
    if output == "json":
        click.echo(json.dumps(dataclasses.asdict(found), default=str, indent=2))
    else:
        console = Console()
        # The terminal breaks long lines: a command then still is one line to whoever copies it.
        console.print(table.summary(name, found), soft_wrap=True)
        console.print(table.details(found))
    return None


def _absent(name: str, view: Observed, namespace: str) -> NotFound:
    left = [each for each in view.pods if each.is_ray]
    rest = "".join(f"; RayCluster {each.name} still cleans up" for each in view.clusters)
    rest += f"; of it there are still {leftovers.sentence(left, view.at)}" if left else ""
    return NotFound(f"there is no RayService {name} in namespace {namespace}{rest}", 404)


def _watch(api: RayServiceApi, name: str) -> None:
    live = Live(auto_refresh=False, screen=sys.stdout.isatty())
    with suppress(KeyboardInterrupt), live:
        for found in api.watch_ray_service_status(name):
            live.update(table.render(name, found), refresh=True)


@click.command()
@name_argument
@waiting
@click.pass_obj
def wait(cluster: Cluster, name: str, bounds: Limits) -> None:
    """Until all of the present spec serves.

    \b
    Exit codes: 0 it serves
                3 it can't heal by itself: DEPLOY_FAILED, an invalid spec, no such RayService
                4 the same hindrance for longer than --patience
                5 not there within --timeout
                1 any other error, for example no access
    """
    wait_for(cluster.api(), name, bounds)


def wait_for(api: RayServiceApi, name: str, bounds: Limits, replaces: bool = False) -> None:
    """Says each new cause once, while it lasts. Raises WaitError.

    `replaces`: the change before gives the service other replicas.
    """
    said = ""

    def tell(found: Status) -> None:
        nonlocal said
        diagnosis = found.diagnosis
        line = f"{diagnosis.state}"
        if diagnosis.cause:
            line += f": {diagnosis.cause}\n  → {diagnosis.advice}"
        if (unclocked := _SECONDS.sub("", line)) != said:
            said = unclocked
            click.echo(line, err=True)

    found = api.wait_until_ray_service_running(name, bounds, tell, replaces)
    endpoints = found.view.service.endpoints if found.view.service else 0
    click.echo(f"{name} serves, endpoints: {endpoints}")


@click.command(name="logs")
@click.argument("which", type=click.Choice(["head", "workers", "sidecar"]))
@name_argument
@click.option("-c", "--container", default="", help="Another container of the same pods.")
@click.option("-f", "--follow", is_flag=True, help="Go on, with pods that come later as well.")
@click.option("--tail", type=click.IntRange(min=0), help="Only the last lines of each container.")
@click.option("-p", "--previous", is_flag=True, help="Of the run before the last restart.")
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
    """Of the head, of the workers, or of the engines beside them."""
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
