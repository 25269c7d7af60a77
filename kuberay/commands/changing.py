"""Commands that change something: each shows what, asks, sends, and waits."""

from pathlib import Path

import click

from kuberay import changes, manifests
from kuberay.changes import Change, Proposal
from kuberay.client import RayServiceApi
from kuberay.commands.options import (
    Cluster,
    Duration,
    dry_run_option,
    limits,
    name_argument,
    wait_option,
    yes_option,
)
from kuberay.commands.reading import wait_for
from kuberay.deletion import delete as carry_out
from kuberay.deletion import propose_deletion
from kuberay.waiting import Limits

_file_option = click.option(
    "-f",
    "--file",
    "source",
    default=str(manifests.DEFAULT),
    help="Manifests, or - for standard input; default: kuberay/rayservice.yaml.",
)


@click.command()
@_file_option
@dry_run_option
@wait_option
@click.pass_obj
def deploy(
    cluster: Cluster, source: str, dry_run: bool, wait: bool, patience: float, timeout: float
) -> None:
    """Apply manifests as `kubectl apply -f` does, then wait until the service is there.

    Applying again changes nothing.
    """
    api, documents = cluster.api(dry_run), manifests.read(source)
    name = manifests.ray_service(documents)["metadata"]["name"]
    for each in api.deploy_ray_service(documents):
        click.echo(f"{each.kind.lower()}/{each.name} {each.verb}{_unsent(dry_run)}")
    if wait and not dry_run:
        wait_for(api, name, limits(patience, timeout))


@click.command()
@name_argument
@click.option("--min", "low", type=int, required=True, help="Least replicas, and pods.")
@click.option("--max", "high", type=int, required=True, help="Most replicas, and pods.")
@click.option("--deployment", default="pool", show_default=True, help="The Serve deployment.")
@click.option("--application", help="Its application, where there are several.")
@click.option("--group", help="Its worker group, where that can't be told by its resources.")
@yes_option
@dry_run_option
@click.pass_obj
def scale(
    cluster: Cluster,
    name: str,
    low: int,
    high: int,
    deployment: str,
    application: str | None,
    group: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Set the bounds of replicas and of their worker group's pods, in place."""
    change = changes.scaled(low, high, deployment, application, group)
    _change(cluster.api(dry_run), name, change, yes or dry_run)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@name_argument
@yes_option
@dry_run_option
@wait_option
@click.pass_obj
def update_config(
    cluster: Cluster,
    file: Path,
    name: str,
    yes: bool,
    dry_run: bool,
    wait: bool,
    patience: float,
    timeout: float,
) -> None:
    """Replace serveConfigV2 by a Serve config file, in place."""
    bounds = limits(patience, timeout) if wait and not dry_run else None
    change = changes.configured(file.read_text())
    _change(cluster.api(dry_run), name, change, yes or dry_run, bounds)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@name_argument
@yes_option
@dry_run_option
@wait_option
@click.pass_obj
def apply_plan(
    cluster: Cluster,
    file: Path,
    name: str,
    yes: bool,
    dry_run: bool,
    wait: bool,
    patience: float,
    timeout: float,
) -> None:
    """Merge the capacity planner's output, a partial Serve config, into serveConfigV2.

    Applications and deployments are found by their names; worker groups follow the bounds.
    """
    bounds = limits(patience, timeout) if wait and not dry_run else None
    change = changes.planned(file.read_text())
    _change(cluster.api(dry_run), name, change, yes or dry_run, bounds)


@click.command()
@name_argument
@click.option("--image", help="Of the Ray containers, and of those that share it.")
@click.option("--ray-version", help="The Ray version in that image.")
@click.option("--sidecar-image", help="Of Ollama.")
@click.option(
    "--strategy",
    type=click.Choice(["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]),
    help="How clusters follow each other; default: as it is.",
)
@click.option("-f", "--file", "source", help="Take the whole spec from this manifest instead.")
@yes_option
@dry_run_option
@wait_option
@click.pass_obj
def upgrade(
    cluster: Cluster,
    name: str,
    image: str | None,
    ray_version: str | None,
    sidecar_image: str | None,
    strategy: str | None,
    source: str | None,
    yes: bool,
    dry_run: bool,
    wait: bool,
    patience: float,
    timeout: float,
) -> None:
    """Change images, the Ray version or the whole spec; wait until the new cluster has taken over.

    The old cluster serves until then. If the new one can't, `rollback` ends the attempt.
    """
    change = changes.upgraded(image, ray_version, sidecar_image, strategy)
    if source:
        change = changes.replaced(manifests.ray_service(manifests.read(source)))
    bounds = limits(patience, timeout) if wait and not dry_run else None
    _change(cluster.api(dry_run), name, change, yes or dry_run, bounds)


@click.command()
@name_argument
@yes_option
@dry_run_option
@wait_option
@click.pass_obj
def rollback(
    cluster: Cluster,
    name: str,
    yes: bool,
    dry_run: bool,
    wait: bool,
    patience: float,
    timeout: float,
) -> None:
    """Go back to the spec before the last change; once more leads forward again."""
    api = cluster.api(dry_run)
    bounds = limits(patience, timeout) if wait and not dry_run else None
    _send(api, api.propose_rollback(name), yes or dry_run, bounds)


@click.command()
@_file_option
@click.option("--timeout", type=Duration(), default="10m", show_default=True, help="Of it all.")
@yes_option
@dry_run_option
@click.pass_obj
def delete(cluster: Cluster, source: str, timeout: float, yes: bool, dry_run: bool) -> None:
    """Delete what the manifests name: the RayService, then, when its clusters are gone, the rest.

    With the rest goes the Secret of the Redis password. The namespace, Secrets of API keys and
    models stay.
    """
    objects = cluster.api(dry_run).objects
    deletion = propose_deletion(objects, manifests.read(source))
    for each in deletion:
        click.echo(f"- {each}")
    if not list(deletion):
        click.echo("there is nothing to delete")
        return
    if not (yes or dry_run):
        click.confirm("Delete these?", abort=True)
    carry_out(objects, deletion, timeout, click.echo, wait=not dry_run)


def _change(
    api: RayServiceApi, name: str, change: Change, sure: bool, bounds: Limits | None = None
) -> None:
    _send(api, api.propose_change(name, change), sure, bounds)


def _send(api: RayServiceApi, proposal: Proposal, sure: bool, bounds: Limits | None) -> None:
    if proposal.is_empty:
        click.echo("nothing to change")
        return
    click.echo(proposal.diff)
    if not sure:
        click.confirm("Send this?", abort=True)
    api.patch_ray_service(proposal)
    if bounds:
        wait_for(api, proposal.name, bounds)


def _unsent(dry_run: bool) -> str:
    return " (dry run)" if dry_run else ""
