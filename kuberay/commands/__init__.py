"""The command line: `python -m kuberay COMMAND`."""

from typing import Any

import click

from kuberay.commands import changing, reading
from kuberay.commands.options import Cluster, Duration
from kuberay.errors import KubeRayError


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KubeRayError as exc:
            click.echo(f"Error: {exc}", err=True)
            ctx.exit(exc.exit_code)


@click.group(cls=_Group, context_settings={"show_default": True})
@click.option(
    "--kubeconfig", help="Kubeconfig file; default: KUBECONFIG, ~/.kube/config, the pod's account."
)
@click.option("--context", help="Context of the kubeconfig; default: the current one.")
@click.option("-n", "--namespace", help="Namespace; default: that of the context, else `default`.")
@click.option(
    "--request-timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="Longest wait for one answer of the API server.",
)
@click.pass_context
def commands(
    ctx: click.Context,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    request_timeout: float,
) -> None:
    """Deploy, watch and change a RayService of KubeRay. NAME is `llm` by default."""
    ctx.obj = Cluster(kubeconfig, context, namespace, request_timeout)


for _command in (
    changing.deploy,
    reading.status,
    reading.wait,
    reading.show_logs,
    changing.scale,
    changing.update_config,
    changing.apply_plan,
    changing.upgrade,
    changing.rollback,
    changing.delete,
):
    commands.add_command(_command)
