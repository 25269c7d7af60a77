"""The benchmark's table on the terminal, as Markdown, JSON and a plot."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.compare import Row, verdicts
from tests.bench.measure import Measurement

_NAMES = {
    "engine": "(a) engine alone",
    "direct": "(b) direct",
    "gateway": "(c) gateway",
    "gateway-least-loaded": "gateway, least loaded",
    "direct-full": "direct, full",
    "gateway-full": "gateway, full",
    "stock": "(d) stock",
    "litellm": "(e) LiteLLM",
    "olla": "(f) Olla",
}
_LINES = (
    ("requests/s, 32 clients", "requests_per_s", "{:,.0f}"),
    ("… x stock", "requests_against_stock", "{:.1f}"),
    ("… x engine alone", "requests_against_engine", "{:.2f}"),
    ("added TTFT p50 / p99, 1 client, ms", ("added_ttft_p50_one", "added_ttft_p99_one"), "{:.2f}"),
    (
        "added TTFT p50 / p99, 1 client, 50 ms pauses, ms",
        ("added_ttft_p50_paused", "added_ttft_p99_paused"),
        "{:.1f}",
    ),
    (
        "added TTFT p50 / p99, 32 clients, ms",
        ("added_ttft_p50_many", "added_ttft_p99_many"),
        "{:.0f}",
    ),
    ("paced streams/s, 64 clients", "paced_streams_per_s", "{:.1f}"),
    ("… x engine alone", "paced_against_engine", "{:.2f}"),
    ("TTFT p99, ms", "paced_ttft_p99", "{:.0f}"),
    ("gap p99, ms", "paced_gap_p99", "{:.0f}"),
    ("CPU s / 1,000 requests", "cpu_s_per_1000", "{:.2f}"),
    ("embedded engine: tokens/s, x engine alone", "embedded_against_engine", "{:.2f}"),
)


def show(console: Console, table: Sequence[Row]) -> None:
    """Print the table and the verdicts on the goals."""
    shown = Table(title="Medians over rounds; ratios and differences within each round")
    shown.add_column("")
    for row in table:
        shown.add_column(_NAMES[row.system], justify="right", no_wrap=True)
    for line in _lines(table):
        shown.add_row(*line)
    console.print(shown)
    for verdict in verdicts(table):
        goal = verdict.goal
        word = (
            "target met" if verdict.target_met else "floor met" if verdict.floor_met else "MISSED"
        )
        console.print(
            f"{goal.system}: {goal.what}: {verdict.value:.2f} {goal.unit} "
            f"(floor {goal.floor:g}, target {goal.target:g}): {word}"
        )


def markdown(table: Sequence[Row]) -> str:
    head = ["", *(_NAMES[row.system] for row in table)]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * len(table)}"]
    lines += [f"| {' | '.join(line)} |" for line in _lines(table)]
    return "\n".join(lines) + "\n"


def write(
    folder: Path, about: dict[str, Any], table: Sequence[Row], measured: Sequence[Measurement]
) -> None:
    """Write `bench.json`, `bench.md` and `bench.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "about": about,
        "table": [asdict(row) for row in table],
        "goals": [asdict(verdict) for verdict in verdicts(table)],
        "measurements": [asdict(m) for m in measured],
    }
    (folder / "bench.json").write_text(json.dumps(value, indent=1) + "\n")
    (folder / "bench.md").write_text(markdown(table))
    plot(folder / "bench.png", table)


def plot(path: Path, table: Sequence[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = (
        ("requests/s, instant engine, 32 clients", "requests_per_s"),
        ("paced streams/s, 64 clients", "paced_streams_per_s"),
        ("added TTFT p50, 1 client, ms", "added_ttft_p50_one"),
    )
    figure, axes = pyplot.subplots(1, len(panels), figsize=(13, 3.2), layout="constrained")
    for axis, (title, name) in zip(axes, panels, strict=True):
        shown = [row for row in table if getattr(row, name) is not None]
        shown = [row for row in shown if name != "added_ttft_p50_one" or row.system != "engine"]
        bars = axis.barh([row.system for row in shown], [getattr(row, name) for row in shown])
        axis.bar_label(bars, fmt="{:,.1f}", padding=3)
        axis.set_title(title, fontsize=10)
        axis.invert_yaxis()
        axis.margins(x=0.18)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _lines(table: Sequence[Row]) -> list[list[str]]:
    """Return a line for each figure, with a cell for each system."""
    return [[name, *(_cell(row, names, form) for row in table)] for name, names, form in _LINES]


def _cell(row: Row, names: str | tuple[str, ...], form: str) -> str:
    values = [getattr(row, name) for name in ([names] if isinstance(names, str) else names)]
    return " / ".join("-" if value is None else form.format(value) for value in values)
