"""Compare runs: repetitions, or other settings under the same load."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from serve_app.capacity.experiment.document import (
    Block,
    Heading,
    Paragraph,
    PictureBlock,
    Table,
    format_seconds,
    percent,
)
from serve_app.capacity.experiment.plots import Picture, runs_picture
from serve_app.capacity.experiment.recording import Recording
from serve_app.capacity.experiment.report import appendix, save, save_json, warnings
from serve_app.capacity.experiment.summary import Findings


@dataclass(frozen=True, slots=True)
class Group:
    """Runs with the same settings, under one name."""

    name: str
    runs: Sequence[Recording]

    def median(self, value: Callable[[Findings], float]) -> float:
        return median(value(run.findings) for run in self.runs)


FIGURES: dict[str, tuple[Callable[[Findings], float], Callable[[float], str]]] = {
    "requests": (lambda f: f.latency.requests, lambda v: f"{v:.0f}"),
    "lost": (lambda f: f.lost, lambda v: f"{v:.0f}"),
    "refused": (lambda f: f.refused, lambda v: f"{v:.0f}"),
    "SLO met by": (lambda f: f.slo_attainment, percent),
    "TTFT p50": (lambda f: f.latency.ttft.quantiles["p50"], lambda v: format_seconds(v, 2)),
    "TTFT p99": (lambda f: f.latency.ttft.quantiles["p99"], lambda v: format_seconds(v, 2)),
    "replica-seconds": (lambda f: f.replica_seconds, lambda v: f"{v:.0f}"),
    "peak": (lambda f: f.peak_running, lambda v: f"{v:.0f}"),
    "flaps": (lambda f: f.flaps, lambda v: f"{v:.0f}"),
}


def again(runs: Sequence[Recording]) -> list[Group]:
    """Make a group of each run of a repeated experiment."""
    return [Group(f"run {number}", [run]) for number, run in enumerate(runs, start=1)]


def summary(groups: Sequence[Group]) -> dict[str, Any]:
    """Compute the median and the extremes of each figure over all runs."""
    findings = [run.findings for group in groups for run in group.runs]
    spreads = {
        name: [value(settings) for settings in findings] for name, (value, _) in FIGURES.items()
    }
    return {
        "runs": len(findings),
        **{
            name: {"median": median(values), "least": min(values), "greatest": max(values)}
            for name, values in spreads.items()
        },
    }


def figures(groups: Sequence[Group]) -> dict[str, Any]:
    """Summarise each group by its name, and all runs as `all`."""
    return {group.name: summary([group]) for group in groups} | {"all": summary(groups)}


def write(folder: Path, title: str, groups: Sequence[Group], command: str) -> None:
    """Write the report of several runs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    named = [(group.name, [run.data for run in group.runs]) for group in groups]
    picture = runs_picture(named)
    save(folder, title, list(_blocks(folder, title, groups, command, picture)), [picture])
    save_json(folder, figures(groups))


def _blocks(
    folder: Path, title: str, groups: Sequence[Group], command: str, picture: Picture
) -> Iterator[Block]:
    yield Heading(title, 1)
    yield Paragraph(
        "All runs have the same arrivals and lengths. They differ by the timing of the machine and "
        "of the autoscaler: differences within the spread of several runs mean nothing."
    )
    for before, after in pairwise(groups):
        if changed([before, after]):
            yield Paragraph(verdict(before, after))
    yield PictureBlock(
        picture, "Above, replicas that served; below, the median time to first token."
    )
    yield _table(groups)
    if rows := changed(groups):
        yield Heading("What differs")
        yield Table(["setting", *(group.name for group in groups)], rows)
    yield Heading("Each run")
    for group in groups:
        for run in group.runs:
            yield Paragraph(f"{group.name}: `{_beside(run.folder, folder)}/report.md`")
            yield from warnings(run.findings)
    yield from appendix(groups[0].runs[0].scenario, command)


def verdict(before: Group, after: Group) -> str:
    """Compare the second group with the first in a sentence."""
    met = [group.median(lambda f: f.slo_attainment) for group in (before, after)]
    used = [group.median(lambda f: f.replica_seconds) for group in (before, after)]
    return (
        f"**{after.name}** met the SLO for {percent(met[1])} of the requests, **{before.name}** "
        f"for {percent(met[0])}; it used {used[1]:.0f} replica-seconds against {used[0]:.0f} "
        f"({percent(used[1] / used[0])})."
    )


def _table(groups: Sequence[Group]) -> Table:
    rows = [[name, *(_cell(group, *of) for group in groups)] for name, of in FIGURES.items()]
    return Table(["", *(group.name for group in groups)], rows)


def _cell(group: Group, value: Callable[[Findings], float], shown: Callable[[float], str]) -> str:
    """Format the median, and the spread if there is one."""
    values = [value(run.findings) for run in group.runs]
    middle = shown(median(values))
    if min(values) == max(values):
        return middle
    return f"{middle} ({shown(min(values))} to {shown(max(values))})"


def changed(groups: Sequence[Group]) -> list[list[str]]:
    """List the settings that differ between the groups, a row each."""
    flat = [dict(_flat(group.runs[0].scenario.model_dump())) for group in groups]
    names = dict.fromkeys(name for settings in flat for name in settings if name != "title")
    rows = [[name, *(str(settings.get(name, "default")) for settings in flat)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, item in value.items():
        yield from _flat(item, f"{name}.{key}" if name else key)


def _beside(folder: Path, other: Path) -> str:
    try:
        return str(folder.resolve().relative_to(other.resolve()))
    except ValueError:
        return folder.name
