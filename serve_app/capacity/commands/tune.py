"""`tune`: find the cheapest settings that meet the SLO, and judge them on another window."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from serve_app.capacity.commands.common import (
    NO,
    as_json,
    progress,
    reports_errors,
    scenario_options,
    table,
)
from serve_app.capacity.commands.simulate import CURRENT, scene
from serve_app.capacity.commands.simulate_report import COLUMNS, row
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.compare import Score, autoscaled, baselines, evaluate, started_for
from serve_app.capacity.simulate.run import SimulatedService
from serve_app.capacity.simulate.scene import SimulatedLoad, scenario_of
from serve_app.capacity.simulate.tune import GRID, ROUNDS, Search, Trial, candidate, tuned_options

# The search uses only seeds below this one.
_HELD_OUT_SEED = 1000
# From two starts. A search ends earlier when a round changes nothing, and repeats no trial.
MAX_TRIALS = 2 * (1 + ROUNDS * sum(map(len, GRID.values())))


@click.command(
    epilog="Exits with 0 if the tuned settings meet the SLO on the held-out window under every "
    "seed, 1 if not, 2 on a failure."
)
@scenario_options
@click.option(
    "--train", metavar="A-B", help="Span of the load for the search, e.g. 0-30m or 0-50%."
)
@click.option(
    "--test", metavar="A-B", help="Span of the load for the verdict, e.g. 30m-60m or 50%-."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File for the settings, as YAML."
)
@click.option(
    "--json", "json", is_flag=True, help="Print the figures as JSON; durations in seconds."
)
@reports_errors
def tune(
    scenario_name: str,
    changes: Sequence[tuple[str, Any]],
    trace: Path | None,
    sweep: Path | None,
    start: str | None,
    slo: str | None,
    seeds: int,
    train: str | None,
    test: str | None,
    out: Path | None,
    json: bool,
) -> None:
    """Find the cheapest autoscaling settings that meet the SLO.

    SCENARIO is a scenario of `experiment`, by name or as a YAML file. By default the search uses
    the first half of a recorded trace and the verdict the second. For drawn arrivals, search and
    verdict use different seeds.
    """
    scenario = scenario_of(scenario_name, dict(changes), trace)
    bounds = Slo.parse(slo or scenario.slo)
    service, whole = scene(scenario, sweep, start, None)
    training, held_out = _spans(train, test, whole)
    training_load = scene(scenario, sweep, start, training)[1]
    held_out_load = scene(scenario, sweep, start, held_out)[1]
    best, tried = _search(service, training_load, range(seeds), bounds)
    others = range(_HELD_OUT_SEED, _HELD_OUT_SEED + seeds)
    scores = _judge(service, best, held_out_load, others, bounds)
    settings = tuned_options(service, best.settings)
    if out:
        out.write_text(yaml.safe_dump({"service": {"autoscaling": settings}}, sort_keys=False))
    if json:
        as_json(
            {
                "slo": str(bounds),
                "settings": settings,
                "tried": tried,
                "training": asdict(best.score),
                "held_out": [asdict(score) for score in scores],
            }
        )
    else:
        _print(best, tried, scores, settings, bounds, scenario.price_per_replica_hour)
    sys.exit(0 if scores[0].met == 1 else NO)


def _search(
    service: SimulatedService, load: SimulatedLoad, seeds: Sequence[int], slo: Slo
) -> tuple[Trial, int]:
    needed = load.needs(service)
    warm = started_for(service, needed)
    enough = min(service.scaling.max_replicas, math.ceil(needed.peak))
    with progress("searching", MAX_TRIALS) as done:
        search = Search(
            warm, load.requests, seeds, slo, load.seconds, enough=enough, done=lambda _: done()
        )
        return search.run(), len(search.trials) + len(search.cut)


def _judge(
    service: SimulatedService, best: Trial, load: SimulatedLoad, seeds: Sequence[int], slo: Slo
) -> list[Score]:
    needed = load.needs(service)
    warm = started_for(service, needed)
    candidates = [
        candidate(warm, best.settings),
        autoscaled(CURRENT, CURRENT, warm),
        *baselines(warm, needed),
    ]
    with progress("judging", len(candidates)) as done:
        scores = []
        for policy in candidates:
            scores.append(evaluate(policy, load.requests, seeds, slo, load.seconds))
            done()
    return scores


def _print(
    best: Trial,
    tried: int,
    scores: Sequence[Score],
    settings: dict[str, float | int],
    slo: Slo,
    price: float,
) -> None:
    table(f"Training, best of {tried}: {slo}", COLUMNS, [row(best.score, price)])
    table("Held out", COLUMNS, [row(score, price) for score in scores])
    click.echo(yaml.safe_dump({"autoscaling": settings}, sort_keys=False))


def _spans(
    train: str | None, test: str | None, load: SimulatedLoad
) -> tuple[str | None, str | None]:
    """Return the spans for search and verdict: halves of a trace, else the whole load."""
    if load.spec.shape == "trace":
        train, test = train or "0-50%", test or "50%-"
    return _span(train, load.seconds), _span(test, load.seconds)


def _span(text: str | None, whole_s: float) -> str | None:
    """Convert shares of the whole load to seconds."""
    return text and "-".join(
        f"{float(part[:-1]) / 100 * whole_s:g}" if part.endswith("%") else part
        for part in text.split("-")
    )
