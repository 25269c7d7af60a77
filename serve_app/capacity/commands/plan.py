"""`plan`: from measurements to the settings of a pool."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from serve_app.capacity.commands.common import FOLDER, NO, QUANTITY, as_json, reports_errors
from serve_app.capacity.planning.plan import Refused
from serve_app.capacity.planning.plan import plan as make_plan
from serve_app.capacity.planning.recommendations import Demand
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep import measured
from serve_app.capacity.sweep.measured import SWEEP, Measured


@click.command(
    epilog="Exits with 0 and a plan, with 1 when the data does not support one (the reasons are "
    "told), with 2 when it could not run."
)
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option("--slo", required=True, help="E.g. ttft_p99=2s,itl_p99=150ms,error_rate=0.1%.")
@click.option("--peak", type=QUANTITY, required=True, help="Expected peak, requests/s (or 600/m).")
@click.option("--base", type=QUANTITY, help="Load at quiet times, requests/s; default: unknown.")
@click.option(
    "--startup",
    type=QUANTITY,
    help="How long a new replica takes to serve (30s); without it no delays are planned.",
)
@click.option("--spare", type=click.IntRange(0), default=0, help="Replicas to spare at the peak.")
@click.option("--to-zero", is_flag=True, help="No replica while there is no load; needs --gateway.")
@click.option("--gateway", is_flag=True, help="The pool is behind a gateway, not the ingress.")
@click.option(
    "--slots", type=click.IntRange(1), help="Of runs of Locust or k6: the engine's slots."
)
@click.option(
    "--window",
    type=QUANTITY,
    default="30s",
    show_default=True,
    help="Runs of other tools are cut into steps of this length.",
)
@click.option(
    "--application",
    default="default",
    show_default=True,
    help="In Ray Serve; the manifests in kuberay/ call it llm.",
)
@click.option("--deployment", default="pool", show_default=True, help="In Ray Serve.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the YAML there, for `python -m kuberay apply-plan`; default: stdout.",
)
@click.option("--json", "json", is_flag=True, help="The plan, or the reasons against one, as JSON.")
@reports_errors
def plan(
    folders: Sequence[Path],
    slo: str,
    peak: float,
    base: float | None,
    startup: float | None,
    spare: int,
    to_zero: bool,
    gateway: bool,
    slots: int | None,
    window: float,
    application: str,
    deployment: str,
    out: Path | None,
    json: bool,
) -> None:
    """From measurements to the settings of a pool, each with the reason why.

    FOLDERS: one sweep, or runs of any load generator against one replica. The plan is a Serve
    config for `serve deploy`, where the environment has the other settings, or a patch of a
    RayService's serveConfigV2.
    """
    if to_zero and not gateway:
        raise click.UsageError("--to-zero needs --gateway: topology direct always has a replica")
    demand = Demand(
        peak, base, startup, spare, application, deployment, direct=not gateway, to_zero=to_zero
    )
    try:
        result = make_plan(_measured(folders, slots, window), Slo.parse(slo), demand)
    except Refused as exc:
        as_json({"refused": exc.reasons}) if json else _refuse(exc)
        sys.exit(NO)
    if out:
        out.write_text(result.yaml())
    if json:
        as_json(
            {
                "config": result.config(),
                "choices": [asdict(setting) for setting in result.recommendations],
            }
        )
    elif not out:
        click.echo(result.yaml(), nl=False)


def _measured(folders: Sequence[Path], slots: int | None, window: float) -> Sequence[Measured]:
    if len(folders) == 1 and (folders[0] / SWEEP).exists():
        return measured.read(folders[0]).measured
    return [measured.read_runs(folders, slots, window)]


def _refuse(exc: Refused) -> None:
    click.echo("No plan, because", err=True)
    for reason in exc.reasons:
        click.echo(f"- {reason}", err=True)
