"""What a sweep found, in words, as a table and as JSON."""

from collections.abc import Callable
from typing import Any

import click

from serve_app.capacity.commands.common import as_json, table
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.measured import Measured, Sweep
from serve_app.capacity.sweep.model import FitError
from serve_app.capacity.sweep.steps import Kind, Step, unjudged

_COLUMNS = ("step", "requests/s", "tokens/s", "ongoing", "TTFT p50", "p99", "TPOT p50", "requests")


def conclusive(slo: Slo) -> Callable[[Measured], bool]:
    """Whether a measurement saw saturation, and a rate that met the SLO."""

    def judge(each: Measured) -> bool:
        return each.saturation() is not None and each.largest(slo) is not None and not each.invalid

    return judge


def tell(found: Sweep, json: bool) -> None:
    if json:
        as_json(
            {"slo": str(found.slo), "measured": [_figures(m, found.slo) for m in found.measured]}
        )
        return
    for each in found.measured:
        table(
            f"{each.slots} slots",
            (
                "step",
                "requests/s",
                "tokens/s",
                "ongoing",
                "TTFT p50",
                "p99",
                "TPOT p50",
                "requests",
            ),
            [_row(step) for step in each.steps],
        )
        for sentence in sentences(each, found.slo):
            click.echo(sentence)


def sentences(each: Measured, slo: Slo) -> list[str]:
    """What the steps say, one sentence each."""
    told = [_saturation(each), _model(each)]
    knee, largest = each.knee(), each.largest(slo)
    if knee:
        told.append(f"Knee: {knee.level:g} users, {knee.tokens_per_s:.0f} tokens/s.")
    if largest:
        told.append(
            f"Largest load that meets {slo}: {largest.completed_per_s:.3g} requests/s, "
            f"{largest.ongoing:.3g} requests at once."
        )
        told += _queueing(each, largest)
    else:
        told.append(f"No rate was seen to meet {slo}.")
    told += [
        f"Can't be judged: {finding.bound} needs {finding.bound.needed} requests in a step, "
        f"one had {finding.count}: raise --most."
        for finding in unjudged([s for s in each.steps if s.kind is Kind.RATE], slo)
    ]
    return told + [f"INVALID: {reason}" for reason in each.invalid]


def _saturation(each: Measured) -> str:
    step = each.saturation()
    if step is None:
        return "No saturation was reached: raise --users."
    unit = "users" if step.kind is Kind.CONCURRENCY else "requests/s"
    return f"Saturated at {step.level:g} {unit}; at most {each.best_tokens_per_s():.0f} tokens/s."


def _model(each: Measured) -> str:
    try:
        fitted = each.fit()
    except FitError as exc:
        return f"No service model: {exc}."
    model = fitted.model
    return (
        f"Model: prefill {model.prefill_tokens_per_s:.0f} tokens/s, decode "
        f"{model.decode_tokens_per_s:.1f} tokens/s alone, each further answer slows all by "
        f"{model.decode_slowdown:.1%}, overhead {1000 * model.overhead_s:.0f} ms "
        f"(mean error {fitted.error:.1%})."
    )


def _queueing(each: Measured, step: Step) -> list[str]:
    try:
        wait = each.wait(step)
    except FitError:
        return []
    if wait is None:
        return []
    return [
        f"Queueing there: a slot was waited for {1000 * wait.seen:.0f} ms on average, compared "
        f"with {1000 * wait.expected:.0f} ms in theory (M/G/{each.slots})."
    ]


def _figures(each: Measured, slo: Slo) -> dict[str, Any]:
    largest, saturated, knee = each.largest(slo), each.saturation(), each.knee()
    return {
        "slots": each.slots,
        "saturated_at": saturated.level if saturated else None,
        "knee": knee.level if knee else None,
        "largest_requests_per_s": largest.completed_per_s if largest else None,
        "tokens_per_s": each.best_tokens_per_s(),
        "says": sentences(each, slo),
        "steps": [
            {
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
            for step in each.steps
        ],
    }


def _row(step: Step) -> tuple[str, ...]:
    unit = "users" if step.kind is Kind.CONCURRENCY else "/s"
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
