"""The report of one run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from serve_app.capacity.experiment.document import (
    Block,
    Code,
    Heading,
    Paragraph,
    PictureBlock,
    Table,
    format_seconds,
    html_page,
    markdown,
    percent,
)
from serve_app.capacity.experiment.plots import (
    Picture,
    latency_picture,
    main_picture,
    pressure_picture,
)
from serve_app.capacity.experiment.recording import SUMMARY, Recording
from serve_app.capacity.experiment.scaling import WINDOW_S, ScalingResponse
from serve_app.capacity.experiment.summary import Findings
from serve_app.capacity.results.statistics import Spread
from serve_app.capacity.workload.scenario import Scenario

_LONG_GAP_S = 5.0
DEFINITIONS = """\
**Intended start**: when the arrival process scheduled the request. **TTFT**: from the intended
start to the first token with content. **ITL**: the gap between consecutive chunks with content,
pooled. **TPOT**: (E2E - TTFT) / (tokens - 1). **E2E**: from the intended start to the last byte.
**Goodput**: answers a second that met every bound of the SLO. **Error rate**: the share of requests
that were not answered with 2xx and whole. All percentiles are of one record per request, pooled.
**Desired** replicas are Ray's target; **replica-seconds** count replicas that start, run or drain.
**Lost**: neither a whole answer nor a refusal. A **flap** is a reversal of the target without one
of the load."""


def write(done: Recording, command: str) -> None:
    """Write the report of one run: summary, pictures, Markdown, HTML."""
    pictures = [main_picture(done.data), pressure_picture(done.data), latency_picture(done.data)]
    blocks = list(one(done.findings, done.scenario, command, pictures))
    save(done.folder, done.scenario.title, blocks, pictures)
    save_json(done.folder, done.findings.as_json())


def save(folder: Path, title: str, blocks: Sequence[Block], pictures: Sequence[Picture]) -> None:
    """Write a document as Markdown and HTML, with its pictures."""
    for picture in pictures:
        (folder / f"{picture.name}.svg").write_bytes(picture.svg)
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    (folder / "report.md").write_text(markdown(blocks))
    (folder / "report.html").write_text(html_page(title, blocks))


def save_json(folder: Path, value: object) -> None:
    (folder / SUMMARY).write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def one(
    findings: Findings, scenario: Scenario, command: str, pictures: Sequence[Picture]
) -> Iterator[Block]:
    """Yield the blocks of the report; `pictures`: the main one, pressure and latencies."""
    main, pressure, latency = pictures
    yield Heading(scenario.title or "An autoscaling experiment", 1)
    yield from warnings(findings)
    yield Paragraph(headline(findings))
    yield PictureBlock(main, _MAIN)
    yield Heading("How replicas followed the load")
    for response in findings.responses:
        yield from _response(response, findings)
    yield Heading("What the callers got")
    yield _served(findings)
    yield _latencies(findings)
    yield PictureBlock(
        latency, "Where a curve passes left of a cross, that bound of the SLO is met."
    )
    yield Heading("What it cost")
    yield _cost(findings, scenario)
    yield Heading("What the autoscaler saw")
    yield PictureBlock(pressure, "Requests at replicas include those that wait there for a slot.")
    yield from appendix(scenario, command)


_MAIN = (
    "Top to bottom: arrivals against whole answers a second; replicas that Ray wants, and those "
    "that start, run and drain; time to first token by the request's intended start (p99 of few "
    "requests is their slowest); failed requests."
)


def appendix(scenario: Scenario, command: str) -> Iterator[Block]:
    """Yield the command and the scenario."""
    yield Heading("How it was made")
    yield Code(command)
    yield Paragraph(
        "Beside this report: `scenario.json`, `run.json` and `requests.jsonl` (from the load "
        "generator, one line per request), `samples.jsonl` (from Ray Serve, one line per second), "
        "`summary.json` (the figures above)."
    )
    yield Code(orjson.dumps(scenario.model_dump(), option=orjson.OPT_INDENT_2).decode(), "json")
    yield Paragraph(DEFINITIONS)


def headline(run: Findings) -> str:
    """Describe the run in three sentences."""
    return (
        f"**{run.latency.requests}** requests by {run.tool} in {run.load_seconds:.0f} s: "
        f"**{run.lost}** lost, {run.truncated} of them truncated, {run.refused} refused; "
        f"{percent(run.slo_attainment)} met the SLO ({run.slo}). "
        f"Replicas went up to **{run.peak_running}** and were {run.lowest_after} at the end, "
        f"with {run.flaps} flaps. "
        f"**{run.replica_seconds:.0f} replica-seconds** were used; with perfect knowledge of the "
        f"load, {format_seconds(run.hindsight.cheapest, 0)} would have been enough."
    )


def warnings(findings: Findings) -> Iterator[Block]:
    """Yield the reasons to distrust the figures."""
    if findings.interrupted:
        yield Paragraph("**Interrupted**: the report ends with the interruption.", warning=True)
    if findings.longest_gap_s > _LONG_GAP_S:
        gap = f"Ray's dashboard was silent for up to {findings.longest_gap_s:.0f} s."
        yield Paragraph(f"**Gaps**: {gap} Replicas and their seconds are less exact.", warning=True)
    for reason in findings.invalid:
        yield Paragraph(f"**Invalid run**, don't use its figures: {reason}.", warning=True)


def _response(response: ScalingResponse, findings: Findings) -> Iterator[Block]:
    rise = response.rise
    begin = rise.begin - findings.load_began
    steep = f"within {rise.end - rise.begin:.0f} s" if rise.end > rise.begin else "at once"
    yield Paragraph(
        f"At {begin:.0f} s the load began to rise from {rise.low:g} to {rise.high:g}, {steep}. "
        + _slo_sentence(response)
    )
    if response.steps:
        head = ["Replica", "wanted after", "served after", "start took"]
        yield Table(head, [_step(s.replicas, s.wanted_s, s.running_s) for s in response.steps])


def _step(number: int, wanted_s: float, running_s: float | None) -> list[str]:
    took = None if running_s is None else running_s - wanted_s
    return [f"{number}", format_seconds(wanted_s), format_seconds(running_s), format_seconds(took)]


def _slo_sentence(response: ScalingResponse) -> str:
    window = f"in windows of {WINDOW_S:g} s"
    if response.slo_lost_s is None:
        return f"The SLO was met throughout ({window})."
    lost = f"The SLO was first missed {response.slo_lost_s:.0f} s after that"
    if response.slo_met_s is None:
        return f"{lost} and not met again ({window})."
    return f"{lost} and met again for good after **{response.slo_met_s:.0f} s** ({window})."


def _served(findings: Findings) -> Table:
    outcomes = [[name, str(count)] for name, count in sorted(findings.latency.outcomes.items())]
    bounds = [
        [f"SLO {r.bound}", f"{_value(r.bound.quantity, r.value)}: {r.verdict}"]
        for r in findings.slo_findings
    ]
    return Table(
        ["", ""],
        [
            *outcomes,
            ["whole answers a second", f"{findings.latency.requests_per_s:.2f}"],
            ["goodput a second", f"{findings.goodput_per_s:.2f}"],
            ["tokens a second", f"{findings.latency.output_tokens_per_s:.0f}"],
            *bounds,
        ],
    )


def _latencies(findings: Findings) -> Table:
    spreads = {
        name: getattr(findings.latency, name.lower()) for name in ("TTFT", "ITL", "TPOT", "E2E")
    }
    spreads["lateness of the generator"] = findings.latency.lateness
    known = {name: spread for name, spread in spreads.items() if spread.count}
    names = list(findings.latency.ttft.quantiles)
    return Table(["seconds", "mean", *names], [_spread(n, s, names) for n, s in known.items()])


def _spread(name: str, spread: Spread, quantiles: Sequence[str]) -> list[str]:
    return [name, f"{spread.mean:.3f}", *(f"{spread.quantiles[q]:.3f}" for q in quantiles)]


def _cost(findings: Findings, scenario: Scenario) -> Table:
    used, hindsight = findings.replica_seconds, findings.hindsight
    price = scenario.price_per_replica_hour / 3600
    rows: list[tuple[str, float | None]] = [
        ("used", used),
        ("least that would have met the SLO, with foresight", hindsight.cheapest),
        ("work alone, every slot always busy", hindsight.work),
    ]
    return Table(
        ["", "replica-seconds", "of those used", f"cost at {scenario.price_per_replica_hour:g}/h"],
        [_priced(name, value, used, price) for name, value in rows],
    )


def _priced(name: str, total: float | None, used: float, price: float) -> list[str]:
    if total is None:
        return [name, "no schedule that was tried", "-", "-"]
    share = percent(total / used) if used else "-"
    return [name, f"{total:.0f}", share, f"{total * price:.4f}"]


def _value(quantity: str, value: float) -> str:
    return f"{100 * value:.2f} %" if quantity == "error_rate" else format_seconds(value, 3)
