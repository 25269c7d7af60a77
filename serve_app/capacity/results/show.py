"""The figures of a run as text, computed from its pooled records."""

import math
from collections.abc import Iterator
from pathlib import Path

from serve_app.capacity.results.request_records import Run, read_run
from serve_app.capacity.results.slo import Slo, attainment, goodput
from serve_app.capacity.results.statistics import QUANTILES, Spread, Summary, summarise


def run_table(folder: Path, slo: Slo) -> str:
    """Format the figures of the run in `folder`. Raises RecordError."""
    run, records = read_run(folder)
    if not records:
        return "\n".join([*(f"INVALID: {reason}" for reason in run.invalid), f"records: {folder}"])
    summary = summarise(records, run.seconds)
    lines = [*_counts(run, summary), "", *_times(summary), "", f"SLO {slo}"]
    for result in slo.judge(records):
        lines.append(f"  {result.bound!s:<22} {result.value:10.4g}   {result.verdict}")
    share, rate = attainment(records, slo), goodput(records, slo, run.seconds)
    lines.append(f"  met by {share:.1%} of the requests; goodput {rate:.2f}/s")
    lines += [f"INVALID: {reason}" for reason in run.invalid]
    return "\n".join([*lines, f"records: {folder}", ""])


def _counts(run: Run, summary: Summary) -> Iterator[str]:
    model = "open" if run.open_model else "closed"
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(summary.outcomes.items()))
    yield f"{run.tool}, {model} load, {run.seconds:.1f} s: {outcomes or 'no request'}"
    yield f"{summary.requests_per_s:.2f} requests/s, {summary.output_tokens_per_s:.1f} tokens/s"


def _times(summary: Summary) -> Iterator[str]:
    names = "".join(f"{f'p{100 * q:g}':>10}" for q in QUANTILES)
    yield f"{'seconds':<22}{'n':>8}{'mean':>10}{names}"
    yield _row("TTFT", summary.ttft)
    yield _row("gap between tokens", summary.itl)
    yield _row("TPOT", summary.tpot)
    yield _row("E2E", summary.e2e)
    yield _row("lateness of sending", summary.lateness)


def _row(name: str, spread: Spread) -> str:
    values = (spread.mean, *spread.quantiles.values())
    shown = "".join(f"{'-' if math.isnan(value) else f'{value:.4f}':>10}" for value in values)
    return f"{name:<22}{spread.count:>8}{shown}"
