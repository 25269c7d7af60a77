"""`tune`: search the cheapest settings that meet the SLO, and judge them on another window."""

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
from serve_app.capacity.commands.simulate import COLUMNS, GIVEN, row, scene
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.compare import Score, autoscaled, baselines, evaluate, started_for
from serve_app.capacity.simulate.run import Service
from serve_app.capacity.simulate.scene import Load, scenario_of
from serve_app.capacity.simulate.tune import DIALS, ROUNDS, Search, Trial, candidate, scaling_of

# Seeds from here on are never searched on.
_UNSEEN = 1000
# From two starts; a search ends sooner where a round changes nothing, and repeats no trial.
MOST_TRIALS = 2 * (1 + ROUNDS * sum(map(len, DIALS.values())))


@click.command(
    epilog="Exits with 0 when the tuned settings meet the SLO on the held-out window under every "
    "seed, 1 when not, 2 when it could not run."
)
@scenario_options
@click.option("--train", metavar="A-B", help="Span to search on: 0-30m, or 0-50%.")
@click.option("--test", metavar="A-B", help="Span to judge on: 30m-60m, or 50%-.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the settings as YAML."
)
@click.option("--json", "json", is_flag=True, help="The figures on stdout; durations in seconds.")
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
    """Search the cheapest autoscaling settings that meet the SLO.

    SCENARIO is one of `experiment`'s, by name or as a YAML file. A recorded trace is searched on
    its first half and judged on its second, unless told otherwise. Where arrivals are drawn, the
    search sees some seeds and is judged on others.
    """
    scenario = scenario_of(scenario_name, dict(changes), trace)
    bounds = Slo.parse(slo or scenario.slo)
    service, whole = scene(scenario, sweep, start, None)
    training, held_out = _spans(train, test, whole)
    seen = scene(scenario, sweep, start, training)[1]
    unseen = scene(scenario, sweep, start, held_out)[1]
    best, tried = _search(service, seen, range(seeds), bounds)
    others = range(_UNSEEN, _UNSEEN + seeds)
    scores = _judge(service, best, unseen, others, bounds)
    settings = scaling_of(service, best.settings)
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
        _tell(best, tried, scores, settings, bounds, scenario.price_per_replica_hour)
    sys.exit(0 if scores[0].met == 1 else NO)


def _search(service: Service, load: Load, seeds: Sequence[int], slo: Slo) -> tuple[Trial, int]:
    needed = load.needs(service)
    begun = started_for(service, needed)
    enough = min(service.scaling.max_replicas, math.ceil(needed.peak))
    with progress("searching", MOST_TRIALS) as done:
        search = Search(
            begun, load.requests, seeds, slo, load.seconds, enough=enough, done=lambda _: done()
        )
        return search.run(), len(search.trials)


def _judge(
    service: Service, best: Trial, load: Load, seeds: Sequence[int], slo: Slo
) -> list[Score]:
    needed = load.needs(service)
    begun = started_for(service, needed)
    candidates = [
        candidate(begun, best.settings),
        autoscaled(GIVEN, GIVEN, begun),
        *baselines(begun, needed),
    ]
    with progress("judging", len(candidates)) as done:
        scores = []
        for each in candidates:
            scores.append(evaluate(each, load.requests, seeds, slo, load.seconds))
            done()
    return scores


def _tell(
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


def _spans(train: str | None, test: str | None, load: Load) -> tuple[str | None, str | None]:
    """Halves of a trace; all of a load that is drawn."""
    if load.spec.shape == "trace":
        train, test = train or "0-50%", test or "50%-"
    return _span(train, load.seconds), _span(test, load.seconds)


def _span(text: str | None, whole_s: float) -> str | None:
    """Shares of the whole load as seconds."""
    return text and "-".join(
        f"{float(part[:-1]) / 100 * whole_s:g}" if part.endswith("%") else part
        for part in text.split("-")
    )
