"""`tune`: search the cheapest settings that meet the SLO, and judge them on another window."""

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
    scenario_options,
    table,
    told,
)
from serve_app.capacity.commands.simulate import COLUMNS, GIVEN, row, scene
from serve_app.capacity.simulate.compare import Score, autoscaled, baselines, evaluate, started_for
from serve_app.capacity.simulate.run import Service
from serve_app.capacity.simulate.scene import Load, scenario_of
from serve_app.capacity.slo import Slo
from serve_app.capacity.tune import Search, Trial, candidate, scaling_of


@click.command(
    epilog="Exits with 0 when the tuned settings meet the SLO on the held-out window under every "
    "seed, 1 when not, 2 when it could not run."
)
@scenario_options
@click.option(
    "--train", default="0-50%", show_default=True, metavar="A-B", help="Span to search on."
)
@click.option("--test", default="50%-", show_default=True, metavar="A-B", help="Span to judge on.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the settings as YAML."
)
@click.option("--json", "json", is_flag=True, help="The figures on stdout; durations in seconds.")
@told
def tune(
    scenario: str,
    changes: Sequence[tuple[str, Any]],
    trace: Path | None,
    sweep: Path | None,
    start: str | None,
    slo: str | None,
    seeds: int,
    train: str,
    test: str,
    out: Path | None,
    json: bool,
) -> None:
    """Search the cheapest autoscaling settings that meet the SLO.

    SCENARIO is one of `experiment`'s, by name or as a YAML file. The search sees the training
    window alone; the figures are of the held-out one. Spans: 0-30m, 30m-60m, or shares: 0-50%.
    """
    inputs = scenario_of(scenario, dict(changes), trace)
    bounds = Slo.parse(slo or inputs.slo)
    whole = scene(inputs, sweep, start, None)[1].seconds
    service, seen = scene(inputs, sweep, start, _span(train, whole))
    _, unseen = scene(inputs, sweep, start, _span(test, whole))
    best, tried = _search(service, seen, range(seeds), bounds)
    scores = _judge(service, best, unseen, range(seeds), bounds)
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
        _tell(best, tried, scores, settings, bounds, inputs.price_per_replica_hour)
    sys.exit(0 if scores[0].met == 1 else NO)


def _search(service: Service, load: Load, seeds: Sequence[int], slo: Slo) -> tuple[Trial, int]:
    with progress("searching", None) as done:
        search = Search(service, load.requests, seeds, slo, load.seconds, done=lambda trial: done())
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
    table(f"Training window, best of {tried}: {slo}", COLUMNS, [row(best.score, price)])
    table("Held-out window", COLUMNS, [row(score, price) for score in scores])
    click.echo(yaml.safe_dump({"autoscaling": settings}, sort_keys=False))


def _span(text: str, whole_s: float) -> str:
    """Shares of the whole load as seconds."""
    parts = text.split("-")
    return "-".join(
        f"{float(part[:-1]) / 100 * whole_s:g}" if part.endswith("%") else part for part in parts
    )
