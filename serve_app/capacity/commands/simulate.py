"""`simulate`: run a load in virtual time; compare policies; validate against experiments."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson
import yaml

from serve_app.capacity.commands import simulate_report
from serve_app.capacity.commands.common import (
    FILE,
    FOLDER,
    NEW_FOLDER,
    NO,
    progress,
    reports_errors,
    scenario_options,
)
from serve_app.capacity.results.run_folder import claim
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate import keys as senders
from serve_app.capacity.simulate import plot, startup
from serve_app.capacity.simulate.compare import (
    Candidate,
    Score,
    autoscaled,
    baselines,
    curves,
    evaluate,
    started_for,
    with_scaling,
)
from serve_app.capacity.simulate.run import SimulatedService
from serve_app.capacity.simulate.run import simulate as run
from serve_app.capacity.simulate.scene import (
    LoadSpan,
    SceneError,
    SimulatedLoad,
    load_of,
    scenario_of,
    service_of,
)
from serve_app.capacity.simulate.validate import validate
from serve_app.capacity.sweep import measured
from serve_app.capacity.sweep.report import fit_model, most_productive, report
from serve_app.capacity.workload.scenario import Scenario

CURRENT = "these settings"


@click.command(
    epilog="Exits with 0 if the settings meet the SLO under every seed (with --validate: if every "
    "error is within its bound), 1 if not, 2 on a failure."
)
@scenario_options
@click.option(
    "--span", metavar="A-B", help="Part of the load to simulate, e.g. 0-30m; default: all."
)
@click.option("--tuned", type=FILE, help="Also compare these settings, written by `tune`.")
@click.option(
    "--quick", is_flag=True, help="Simulate only the settings and the baselines, no curves."
)
@click.option("--out", type=NEW_FOLDER, help="Folder for pictures and result.json.")
@click.option(
    "--json", "json", is_flag=True, help="Print the figures as JSON; durations in seconds."
)
@click.option(
    "--keys",
    metavar="KEYS",
    help="Instead print the tokens and times of each of these keys: " + senders.HELP + ".",
)
@click.option(
    "--validate",
    "live_folder",
    type=FOLDER,
    help="Instead replay the experiment in this folder (with run-1, run-2, …), which ran the "
    "simulated engine, and print the error of the simulation.",
)
@reports_errors
def simulate(
    scenario_name: str,
    changes: Sequence[tuple[str, Any]],
    trace: Path | None,
    sweep: Path | None,
    start: str | None,
    slo: str | None,
    seeds: int,
    span: str | None,
    tuned: Path | None,
    quick: bool,
    out: Path | None,
    json: bool,
    keys: str | None,
    live_folder: Path | None,
) -> None:
    """Simulate a load in virtual time, with Ray's own autoscaling policy.

    SCENARIO is a scenario of `experiment`, by name or as a YAML file. A modelled engine serves
    drawn or recorded requests; Ray's policy gets the metrics that it would get in a live service.
    The same load is then run under baselines (static, Ray's defaults, an oracle that knows the
    future) and under variations of each family of settings.
    """
    if live_folder:
        _validate(live_folder, max(seeds, 10), json)
        return
    if out:
        claim(out, instead="give another --out")
    scenario = scenario_of(scenario_name, dict(changes), trace)
    service, load = scene(scenario, sweep, start, span, bool(keys))
    if keys:
        _by_key(service, load, senders.parse_key_shares(keys), seeds, json)
        return
    bounds = Slo.parse(slo or scenario.slo)
    others = _tuned(service, tuned)
    if not quick:
        others += curves(service, load.needs(service))
    scores = _scores(service, load, range(seeds), bounds, others)
    if out:
        _write(out, service, load, bounds, scores)
    simulate_report.show(scores, bounds, load, scenario.price_per_replica_hour, json)
    sys.exit(0 if scores[0].met == 1 else NO)


def scene(
    scenario: Scenario,
    sweep: Path | None,
    start: str | None,
    span: str | None,
    has_callers: bool = False,
) -> tuple[SimulatedService, SimulatedLoad]:
    """Build the service and its load. The fleet starts as large as the first minute needs."""
    model = best_model(sweep) if sweep else None
    starts = startup.parse_startup(start) if start else None
    service = service_of(scenario, model, starts, has_callers)
    load = load_of(scenario, LoadSpan.parse(span) if span else None)
    return started_for(service, load.needs(service)), load


def best_model(sweep: Path) -> Any:
    """Fit the measurement with the highest throughput. Raises FitError."""
    results = measured.read(sweep)
    reports = [report(measurement, results.slo) for measurement in results.measured]
    return fit_model(most_productive(reports).measured).model


def _tuned(service: SimulatedService, file: Path | None) -> list[Candidate]:
    if file is None:
        return []
    try:
        changes = yaml.safe_load(file.read_text())["service"]["autoscaling"]
        return [autoscaled("tuned", "tuned", with_scaling(service, **changes))]
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as exc:
        raise SceneError(f"{file} holds no settings of `tune`: {exc}") from exc


def _scores(
    service: SimulatedService,
    load: SimulatedLoad,
    seeds: Sequence[int],
    slo: Slo,
    others: Sequence[Candidate],
) -> list[Score]:
    candidates: list[Candidate] = [
        autoscaled(CURRENT, CURRENT, service),
        *baselines(service, load.needs(service)),
        *others,
    ]
    scores = []
    with progress("simulating", len(candidates)) as done:
        for candidate in candidates:
            scores.append(evaluate(candidate, load.requests, seeds, slo, load.seconds))
            done()
    return scores


def _write(
    out: Path, service: SimulatedService, load: SimulatedLoad, slo: Slo, scores: Sequence[Score]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    title = f"SLO: {slo}"
    plot.curve(scores, title, out / "curve.png")
    current = autoscaled(CURRENT, CURRENT, service)
    result = run(load.requests(0), service, current.policy(), 0, load.seconds)
    plot.over_time(result, f"{CURRENT}, seed 0", out / "over-time.png")
    value = {"slo": str(slo), "scores": [asdict(score) for score in scores]}
    (out / "result.json").write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def _by_key(
    service: SimulatedService,
    load: SimulatedLoad,
    keys: tuple[senders.KeyShare, ...],
    seeds: int,
    json: bool,
) -> None:
    """Print the mean figures of each key over all seeds."""
    results = []
    with progress("simulating", seeds) as done:
        for seed in range(seeds):
            requests = senders.sent_by(keys, load.requests(seed), seed)
            policy = autoscaled(CURRENT, CURRENT, service).policy()
            results.append(run(requests, service, policy, seed, load.seconds))
            done()
    simulate_report.show_keys([sender.flow.key for sender in keys], results, load, json)


def _validate(folder: Path, seeds: int, json: bool) -> None:
    with progress("replaying", seeds) as done:
        validation = validate(folder, range(seeds), done)
    simulate_report.show_validation(validation, json)
    sys.exit(0 if validation.holds else NO)
