"""A sweep's report in words, as a table and as JSON."""

from typing import Any

import click

from serve_app.capacity.commands.common import as_json, table
from serve_app.capacity.sweep.report import SweepReport
from serve_app.capacity.sweep.steps import StepKind, SweepStep

_COLUMNS = ("step", "requests/s", "tokens/s", "ongoing", "TTFT p50", "p99", "TPOT p50", "requests")


def show(reports: list[SweepReport], json: bool) -> None:
    """Print the reports, of at least one measurement, to stdout."""
    if json:
        as_json({"slo": str(reports[0].slo), "measured": [_figures(report) for report in reports]})
        return
    for report in reports:
        measured = report.measured
        table(f"{measured.slots} slots", _COLUMNS, [_row(step) for step in measured.steps])
        for sentence in conclusions(report):
            click.echo(sentence)


def conclusions(report: SweepReport) -> list[str]:
    """Return the conclusions, a sentence each."""
    return [
        _saturation(report),
        _model(report),
        *_knee(report),
        *_largest(report),
        *_unjudged(report),
        *(f"INVALID: {reason}" for reason in report.measured.invalid),
    ]


def _saturation(report: SweepReport) -> str:
    step = report.saturation
    if step is None:
        return "The sweep did not reach saturation. Raise --users."
    unit = "users" if step.kind is StepKind.CONCURRENCY else "requests/s"
    return f"Saturated at {step.level:g} {unit}; at most {report.max_tokens_per_s:.0f} tokens/s."


def _model(report: SweepReport) -> str:
    if report.fit is None:
        return f"No service model: {report.fit_problem}."
    model = report.fit.model
    return (
        f"Model: prefill {model.prefill_tokens_per_s:.0f} tokens/s, decode "
        f"{model.decode_tokens_per_s:.1f} tokens/s alone, each further answer slows all by "
        f"{model.decode_slowdown:.1%}, overhead {1000 * model.overhead_s:.0f} ms "
        f"(mean error {report.fit.error:.1%})."
    )


def _knee(report: SweepReport) -> list[str]:
    if report.knee is None:
        return []
    return [f"Knee: {report.knee.level:g} users, {report.knee.tokens_per_s:.0f} tokens/s."]


def _largest(report: SweepReport) -> list[str]:
    largest = report.largest
    if largest is None:
        return [f"No measured rate met {report.slo}."]
    rate, ongoing = largest.completed_per_s, largest.ongoing
    load = f"{rate:.3g} requests/s, {ongoing:.3g} requests at once"
    return [f"Largest load that meets {report.slo}: {load}.", *_wait(report)]


def _wait(report: SweepReport) -> list[str]:
    if report.wait is None:
        return []
    return [
        f"Queueing there: a slot was waited for {1000 * report.wait.measured_s:.0f} ms on "
        f"average, compared with {1000 * report.wait.expected_s:.0f} ms in theory "
        f"(M/G/{report.measured.slots})."
    ]


def _unjudged(report: SweepReport) -> list[str]:
    return [
        f"Can't be judged: {result.bound} needs {result.bound.needed} requests in a step, "
        f"one had {result.count}: raise --max-step."
        for result in report.unjudged
    ]


def _figures(report: SweepReport) -> dict[str, Any]:
    saturation, knee, largest = report.saturation, report.knee, report.largest
    return {
        "slots": report.measured.slots,
        "saturated_at": saturation.level if saturation else None,
        "knee": knee.level if knee else None,
        "largest_requests_per_s": largest.completed_per_s if largest else None,
        "tokens_per_s": report.max_tokens_per_s,
        "says": conclusions(report),
        "steps": [_step_figures(step) for step in report.measured.steps],
    }


def _step_figures(step: SweepStep) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "level": step.level,
        "seconds": step.seconds,
        "requests": len(step.records),
        "requests_per_s": step.completed_per_s,
        "tokens_per_s": step.tokens_per_s,
        "ongoing": step.ongoing,
        "ttft_p50_s": step.quantile("ttft", 0.5),
        "ttft_p99_s": step.quantile("ttft", 0.99),
        "tpot_p50_s": step.quantile("tpot", 0.5),
    }


def _row(step: SweepStep) -> tuple[str, ...]:
    unit = "users" if step.kind is StepKind.CONCURRENCY else "/s"
    return (
        f"{step.level:g} {unit}",
        f"{step.completed_per_s:.2f}",
        f"{step.tokens_per_s:.0f}",
        f"{step.ongoing:.1f}",
        f"{step.quantile('ttft', 0.5):.3f} s",
        f"{step.quantile('ttft', 0.99):.3f} s",
        f"{1000 * step.quantile('tpot', 0.5):.1f} ms",
        str(len(step.records)),
    )
