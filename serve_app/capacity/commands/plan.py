"""`plan`: compute the settings of a pool from measurements."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from serve_app.capacity.commands.common import FOLDER, NO, QUANTITY, as_json, reports_errors
from serve_app.capacity.planning.plan import Plan, Refused, make_plan
from serve_app.capacity.planning.recommendations import PlannedDemand
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep import measured
from serve_app.capacity.sweep.measured import SWEEP, Measured


@click.command(
    epilog="Exits with 0 and a plan, with 1 and the reasons if the data does not support a plan, "
    "with 2 on a failure."
)
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--slo", required=True, help="Objectives, e.g. ttft_p99=2s,itl_p99=150ms,error_rate=0.1%."
)
@click.option(
    "--peak", type=QUANTITY, required=True, help="Expected peak in requests/s, or e.g. 600/m."
)
@click.option("--base", type=QUANTITY, help="Load at quiet times in requests/s; default: unknown.")
@click.option(
    "--startup",
    type=QUANTITY,
    help="Time until a new replica serves, e.g. 30s. Without it the plan sets no delays.",
)
@click.option(
    "--spare", type=click.IntRange(0), default=0, help="Replicas that may be lost at the peak."
)
@click.option("--to-zero", is_flag=True, help="Scale to zero without load; needs --gateway.")
@click.option("--gateway", is_flag=True, help="The pool is behind a gateway.")
@click.option(
    "--slots", type=click.IntRange(1), help="Slots of the engine, for runs of Locust or k6."
)
@click.option(
    "--window",
    type=QUANTITY,
    default="30s",
    show_default=True,
    help="Length of the steps into which runs of Locust or k6 are split.",
)
@click.option(
    "--application",
    default="default",
    show_default=True,
    help="Name of the application in Ray Serve; `llm` in the manifests of kuberay/.",
)
@click.option(
    "--deployment", default="pool", show_default=True, help="Name of the pool's deployment."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the YAML, for `python -m kuberay apply-plan`; default: stdout.",
)
@click.option(
    "--json", "json", is_flag=True, help="Print the plan, or the reasons against one, as JSON."
)
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
    """Compute the settings of a pool from measurements, with a reason for each.

    FOLDERS holds one sweep, or runs of any load generator against one replica. The plan is a Serve
    config for `serve deploy`, with the other settings in the environment, or a patch of a
    RayService's serveConfigV2.
    """
    objectives = Slo.parse(slo)
    _refuse_impossible(
        (
            to_zero and not gateway,
            "--to-zero needs --gateway, because topology direct always has a replica",
        ),
        (not objectives.bounds, "--slo names no objective; write e.g. ttft_p99=2s"),
        (not peak, "--peak must be above 0"),
        ((base or 0) > peak, f"--base ({base or 0:g}/s) is above --peak ({peak:g}/s)"),
        (not window, "--window must be above 0"),
    )
    demand = PlannedDemand(
        peak, base, startup, spare, application, deployment, direct=not gateway, to_zero=to_zero
    )
    try:
        result = make_plan(_measured(folders, slots, window), objectives, demand)
    except Refused as exc:
        as_json({"refused": exc.reasons}) if json else _refuse(exc)
        sys.exit(NO)
    _write(result, out, json)


def _refuse_impossible(*rules: tuple[bool, str]) -> None:
    """Raise UsageError with the sentence of the first broken rule, before anything is read."""
    for broken, sentence in rules:
        if broken:
            raise click.UsageError(sentence)


def _measured(folders: Sequence[Path], slots: int | None, window: float) -> Sequence[Measured]:
    if len(folders) == 1 and (folders[0] / SWEEP).exists():
        return measured.read(folders[0]).measured
    return [measured.read_runs(folders, slots, window)]


def _write(result: Plan, out: Path | None, json: bool) -> None:
    if out:
        out.write_text(result.yaml())
    if json:
        choices = [asdict(setting) for setting in result.recommendations]
        as_json({"config": result.config(), "choices": choices})
    elif not out:
        click.echo(result.yaml(), nl=False)


def _refuse(exc: Refused) -> None:
    click.echo("No plan, because", err=True)
    for reason in exc.reasons:
        click.echo(f"- {reason}", err=True)
