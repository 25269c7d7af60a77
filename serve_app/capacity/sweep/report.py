"""The conclusions of a sweep, computed once. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from serve_app.capacity.results.request_records import Record
from serve_app.capacity.results.slo import BoundResult, Slo
from serve_app.capacity.sweep.measured import Measured
from serve_app.capacity.sweep.model import Fit, FitError, ServiceModel, fit_steps, streams
from serve_app.capacity.sweep.queueing import mgc_wait
from serve_app.capacity.sweep.steps import StepKind, SweepStep, knee, largest, saturation, unjudged


@dataclass(frozen=True, slots=True)
class SlotWait:
    """Mean seconds that a request waits for a slot: measured, and by theory for M/G/c."""

    measured_s: float
    expected_s: float


@dataclass(frozen=True, slots=True)
class SweepReport:
    """The limits of one replica under an SLO; None where the steps do not show one.

    `fit_problem`: why there is no `fit`. `unjudged` are bounds with too few requests.
    """

    measured: Measured
    slo: Slo
    saturation: SweepStep | None
    knee: SweepStep | None
    largest: SweepStep | None
    max_tokens_per_s: float
    fit: Fit | None
    fit_problem: str
    wait: SlotWait | None
    unjudged: tuple[BoundResult, ...]

    @property
    def conclusive(self) -> bool:
        """Whether saturation and a rate that meets the SLO were measured by a valid generator."""
        return bool(self.saturation and self.largest and not self.measured.invalid)

    @property
    def rate(self) -> float:
        """Requests per second at the largest load that meets the SLO; 0 if no load does."""
        return self.largest.completed_per_s if self.largest else 0.0


def report(measured: Measured, slo: Slo) -> SweepReport:
    """Compute all conclusions of one measurement."""
    steps, (model, problem) = measured.steps, _fit_or_reason(measured)
    best = largest(steps, slo)
    return SweepReport(
        measured=measured,
        slo=slo,
        saturation=saturation(steps),
        knee=knee(steps),
        largest=best,
        max_tokens_per_s=max((step.tokens_per_s for step in steps), default=0.0),
        fit=model,
        fit_problem=problem,
        wait=slot_wait(best, measured.slots, model.model) if best and model else None,
        unjudged=tuple(unjudged([s for s in steps if s.kind is StepKind.RATE], slo)),
    )


def fit_model(measured: Measured) -> Fit:
    """Fit the service model to the steps without a queue: those at or below the slots.

    Raises FitError.
    """
    if not measured.steps:
        raise FitError("there are no steps")
    slots = measured.slots
    unqueued = [
        step.records
        for step in measured.steps
        if slots is None or step.kind is StepKind.RATE or step.level <= slots
    ]
    return fit_steps(unqueued or [step.records for step in measured.steps])


def slot_wait(step: SweepStep, slots: int | None, model: ServiceModel) -> SlotWait | None:
    """Compare the wait for a slot in an open step with theory; None without slots or answers.

    Service times follow from the model at the concurrency of the step's answers.
    """
    if not slots or not step.records:
        return None
    at_once = streams(step.records)
    times, waits = [], []
    for record in step.records:
        if sizes := _sizes(record):
            prompt, output, ttft = sizes
            times.append(model.service_s(prompt, output, at_once))
            first = model.overhead_s + model.prefill_s(prompt) + model.token_s(at_once)
            waits.append(ttft - first)
    if len(times) < 2:
        return None
    mean = fmean(times)
    expected = mgc_wait(slots, step.offered_per_s, mean, stdev(times) / mean)
    return SlotWait(max(0.0, fmean(waits)), expected)


def _sizes(record: Record) -> tuple[int, int, float] | None:
    """Prompt tokens, output tokens and TTFT of a whole answer that counts them."""
    if record.ok and record.prompt_tokens and record.output_tokens and record.ttft:
        return record.prompt_tokens, record.output_tokens, record.ttft
    return None


def _fit_or_reason(measured: Measured) -> tuple[Fit | None, str]:
    try:
        return fit_model(measured), ""
    except FitError as exc:
        return None, str(exc)


def most_productive(reports: Sequence[SweepReport]) -> SweepReport:
    """Return the report with the highest throughput in tokens per second."""
    return max(reports, key=lambda one: one.max_tokens_per_s)
