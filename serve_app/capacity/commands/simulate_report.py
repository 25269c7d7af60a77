"""A simulation's scores, figures by key and errors, as tables and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from math import isnan
from statistics import fmean
from typing import Any

import click

from serve_app.capacity.commands.common import as_json, table
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.compare import Score
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.scene import SimulatedLoad
from serve_app.capacity.simulate.validate import ALLOWED, ENOUGH_RUNS, Validation

COLUMNS = (
    *("policy", "replica-hours", "cost", "requests in SLO", "SLO met"),
    *("TTFT p50", "p99", "peak"),
)


def show(scores: Sequence[Score], slo: Slo, load: SimulatedLoad, price: float, json: bool) -> None:
    """Print the scores of all candidates."""
    if json:
        as_json({"slo": str(slo), "scores": [asdict(score) for score in scores]})
        return
    table(
        f"{slo} over {load.seconds / 60:.0f} minutes",
        COLUMNS,
        [row(score, price) for score in scores],
    )


def row(score: Score, price: float) -> tuple[str, ...]:
    """Return the cells of one candidate."""
    attainment = score.attainment
    half = 100 * (attainment.high - attainment.mean)
    return (
        score.name,
        f"{score.replica_hours:.2f}",
        f"{price * score.replica_hours.mean:.2f}",
        f"{100 * attainment.mean:.2f} %" + ("" if isnan(half) else f" ± {half:.2f}"),
        f"{score.met:.0%}",
        f"{score.ttft_p50_s:.2f} s",
        f"{score.ttft_p99_s:.2f} s",
        str(score.peak_replicas),
    )


def show_keys(
    names: Sequence[str], results: Sequence[Result], load: SimulatedLoad, json: bool
) -> None:
    """Print the mean figures of each key over the results."""
    figures = [key_figures(name, results) for name in names]
    if json:
        as_json({"keys": figures})
        return
    table(
        f"By key over {load.seconds / 60:.0f} minutes",
        ("key", "requests", "refused", "share of tokens", "TTFT p50", "p95"),
        [
            (
                str(key["name"]),
                f"{key['requests']:.0f}",
                f"{key['refused']:.0f}",
                f"{key['share']:.1%}",
                f"{key['ttft_p50_s']:.2f} s",
                f"{key['ttft_p95_s']:.2f} s",
            )
            for key in figures
        ],
    )


def key_figures(name: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return means over the results. `share`: of the service of all keys."""
    own = [result.by_key[name] for result in results]
    everything = sum(key.service for result in results for key in result.by_key.values())
    return {
        "name": name,
        "requests": fmean(key.requests for key in own),
        "refused": fmean(key.refusals for key in own),
        "share": sum(key.service for key in own) / (everything or 1),
        "ttft_p50_s": fmean(key.ttft(0.5) for key in own),
        "ttft_p95_s": fmean(key.ttft(0.95) for key in own),
    }


def show_validation(validation: Validation, json: bool) -> None:
    """Print the error of each simulated figure."""
    if json:
        as_json(asdict(validation) | {"holds": validation.holds})
        return
    table(
        f"Medians of {validation.runs} live runs and {validation.seeds} simulations",
        ("figure", "live", "simulated", "error", "spread of the live runs", "allowed", ""),
        [
            (
                figure.name,
                f"{figure.live:.4g} {figure.unit}",
                f"{figure.simulated:.4g} {figure.unit}",
                f"{figure.error:.1%}",
                f"{figure.spread:.1%}",
                f"{max(ALLOWED, figure.spread):.1%}",
                "holds" if figure.holds else "FAILS",
            )
            for figure in validation.figures
        ],
    )
    for number, seconds in enumerate(validation.startups, 1):
        click.echo(f"run {number}: replicas took {seconds} to start")
    if validation.runs < ENOUGH_RUNS:
        click.echo(
            f"{validation.runs} runs are too few to know their spread; "
            f"repeat the experiment with --repeat {ENOUGH_RUNS}"
        )
