"""Commands that change a RayService: they show the change, ask, send it and wait."""

from pathlib import Path

import click

from kuberay.changes import deletion, edits, manifests, upgrades
from kuberay.changes.edits import Change, Proposal
from kuberay.changes.effects import Effects
from kuberay.client import RayServiceApi
from kuberay.commands.options import (
    Cluster,
    Sending,
    awaiting,
    dry_run_option,
    name_argument,
    sending,
    timeout_option,
)
from kuberay.commands.reading import wait_for
from kuberay.status.waiting import WaitLimits

_manifests = click.option(
    "-f",
    "--file",
    "source",
    default=str(manifests.DEFAULT),
    help="File of manifests, - for standard input; default: kuberay/rayservice.yaml.",
)
_config_file = click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE"
)


@click.command(short_help="Apply manifests and wait until the service is ready.")
@_manifests
@dry_run_option
@awaiting
@click.pass_obj
def deploy(cluster: Cluster, source: str, dry_run: bool, bounds: WaitLimits | None) -> None:
    """Apply manifests as `kubectl apply -f` does, then wait until the service is ready.

    Applying the same manifests again changes nothing.
    """
    api, documents = cluster.api(dry_run), manifests.read(source)
    name = manifests.ray_service(documents)["metadata"]["name"]
    effects = api.effects_of(manifests.ray_service(documents))
    _print_effects(effects)
    rehearsed = " (dry run)" if dry_run else ""
    for applied in api.deploy_ray_service(documents):
        click.echo(f"{applied.kind.lower()}/{applied.name} {applied.verb}{rehearsed}")
    if bounds and not dry_run:
        wait_for(api, name, bounds, effects.replaces)


@click.command(short_help="Set the bounds of replicas and pods, in place.")
@name_argument
@click.option("--min", "low", type=int, required=True, help="Minimum of replicas and pods.")
@click.option("--max", "high", type=int, required=True, help="Maximum of replicas and pods.")
@click.option("--deployment", default="pool", show_default=True, help="Serve deployment to scale.")
@click.option("--application", help="Application of the deployment, unless there is only one.")
@click.option("--group", help="Worker group to scale, unless the resources determine it.")
@sending
@awaiting
@click.pass_obj
def scale(
    cluster: Cluster,
    name: str,
    low: int,
    high: int,
    deployment: str,
    application: str | None,
    group: str | None,
    sending: Sending,
    bounds: WaitLimits | None,
) -> None:
    """Set the bounds of replicas, and of the pods in their worker group, in place."""
    _change(cluster, name, edits.scaled(low, high, deployment, application, group), sending, bounds)


@click.command(short_help="Replace serveConfigV2 in the same cluster.")
@_config_file
@name_argument
@sending
@awaiting
@click.pass_obj
def update_config(
    cluster: Cluster, file: Path, name: str, sending: Sending, bounds: WaitLimits | None
) -> None:
    """Replace serveConfigV2 with a Serve config file, in the same cluster."""
    _change(cluster, name, edits.configured(file.read_text()), sending, bounds)


@click.command(short_help="Merge the capacity planner's output into serveConfigV2.")
@_config_file
@name_argument
@sending
@awaiting
@click.pass_obj
def apply_plan(
    cluster: Cluster, file: Path, name: str, sending: Sending, bounds: WaitLimits | None
) -> None:
    """Merge the capacity planner's output, a partial Serve config, into serveConfigV2.

    Applications and deployments are matched by name; worker groups get the new bounds.
    """
    _change(cluster, name, edits.planned(file.read_text()), sending, bounds)


@click.command(short_help="Change images, the Ray version or the whole spec.")
@name_argument
@click.option("--image", help="New image for the Ray containers and others with the same image.")
@click.option("--ray-version", help="Ray version in the new image.")
@click.option(
    "--sidecar-image", help="New image for the sidecar `ollama` and others with the same image."
)
@click.option(
    "--strategy",
    type=click.Choice(["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]),
    help="How a new cluster replaces the old one; default: unchanged.",
)
@click.option("-f", "--file", "source", help="Take the whole spec from this manifest.")
@sending
@awaiting
@click.pass_obj
def upgrade(
    cluster: Cluster,
    name: str,
    image: str | None,
    ray_version: str | None,
    sidecar_image: str | None,
    strategy: str | None,
    source: str | None,
    sending: Sending,
    bounds: WaitLimits | None,
) -> None:
    """Change images, the Ray version or the whole spec; wait until the new cluster serves.

    The old cluster serves until then. If the new one fails, `rollback` ends the attempt. The new
    one starts with as many replicas as run now, and needs room for them beside the old ones.
    """
    change = upgrades.upgraded(image, ray_version, sidecar_image, strategy)
    if source:
        change = upgrades.replaced(manifests.ray_service(manifests.read(source)))
    _change(cluster, name, change, sending, bounds)


@click.command(short_help="Go back to the spec before the last change.")
@name_argument
@sending
@awaiting
@click.pass_obj
def rollback(cluster: Cluster, name: str, sending: Sending, bounds: WaitLimits | None) -> None:
    """Go back to the spec before the last change; a second rollback undoes the first."""
    api = cluster.api(sending.dry_run)
    _send(api, api.propose_rollback(name), sending, bounds)


@click.command(short_help="Delete the RayService and its objects.")
@_manifests
@timeout_option("10m")
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait for the pods too, which may hold GPUs for minutes.",
)
@sending
@click.pass_obj
def delete(cluster: Cluster, source: str, timeout: float, wait: bool, sending: Sending) -> None:
    """Delete the RayService of the manifests and, once its clusters are gone, the other objects.

    The Secret of the Redis password is deleted too. The namespace, Secrets of API keys and
    PersistentVolumeClaims (models, Redis's state) stay, even if the manifests name them. The
    command waits for the last pod: a worker keeps its GPU until its last answer is complete.

    \b
    Exit codes: 0 everything is gone (with --no-wait: deleted, the last pods may still be ending)
                5 something is still there after --timeout
    """
    objects = cluster.api(sending.dry_run).objects
    plan = deletion.propose_deletion(objects, manifests.read(source))
    if not list(plan):
        click.echo("nothing to delete: no object of the manifests exists")
    for target in plan:
        click.echo(f"- {target}")
    if list(plan):
        _confirm("Delete these objects?", sending)
    if sending.dry_run:
        deletion.delete(objects, plan, timeout_s=None)
    else:
        deletion.delete(objects, plan, timeout, click.echo, wait_for_pods=wait)


def _change(
    cluster: Cluster, name: str, change: Change, sending: Sending, bounds: WaitLimits | None
) -> None:
    api = cluster.api(sending.dry_run)
    _send(api, api.propose_change(name, change), sending, bounds)


def _send(
    api: RayServiceApi, proposal: Proposal, sending: Sending, bounds: WaitLimits | None
) -> None:
    if proposal.is_empty:
        click.echo("nothing to change")
        return
    if not proposal.changes_spec:
        click.echo("the RayService is up to date, but not the bounds of its running clusters:")
    for line in proposal.diff.splitlines():
        click.secho(line, fg={"+": "green", "-": "red"}.get(line[:1]))
    _print_effects(proposal.effects)
    _confirm("Send this change?", sending)
    api.patch_ray_service(proposal)
    if bounds and not sending.dry_run:
        wait_for(api, proposal.name, bounds, proposal.effects.replaces)


def _print_effects(effects: Effects) -> None:
    for sentence in effects.sentences:
        click.echo(f"→ {sentence}")


def _confirm(question: str, sending: Sending) -> None:
    if not sending.is_confirmed:
        click.confirm(question, abort=True)
