"""Pictures of an experiment on one time axis."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from serve_app.capacity.experiment import panels
from serve_app.capacity.experiment.panels import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    RunData,
)
from serve_app.capacity.experiment.series import series

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "path",
    "svg.hashsalt": "serve_app",  # equal data, equal files
}
_WIDTH_INCHES = 9.5
# Colours of overlaid runs; the first ones differ most, also in lightness.
_RUN_COLOURS = (BLUE, ORANGE, BLACK, GREEN, PURPLE, SKY)
_DPI = 110


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as SVG and PNG; `alt` describes it in words."""

    name: str
    alt: str
    svg: bytes
    png: bytes


def main_picture(data: RunData) -> Picture:
    """Draw offered and completed load, replicas, TTFT and errors on one time axis."""
    values = series(data.records, data.bins)
    with rc_context(_STYLE):
        figure, axes = _panels(4, [1.1, 1.1, 1.1, 0.6], 8.6)
        panels.load(axes[0], data, values)
        panels.replicas(axes[1], data)
        panels.ttft(axes[2], data, values)
        panels.errors(axes[3], data, values)
        _finish(figure, axes, data)
        return _picture(
            "scaling",
            "Offered and completed load, replicas, time to first token and failures over time.",
            figure,
        )


def pressure_picture(data: RunData) -> Picture:
    """Draw the autoscaler's input: running and waiting requests, in all and per replica; CPU."""
    with rc_context(_STYLE):
        figure, axes = _panels(3, [1, 1, 0.8], 6.4)
        panels.requests(axes[0], data)
        panels.per_replica(axes[1], data)
        panels.cpu(axes[2], data)
        _finish(figure, axes, data)
        return _picture(
            "pressure", "Requests held and waiting, in all and per replica, and CPU.", figure
        )


def latency_picture(data: RunData) -> Picture:
    """Draw the distributions of TTFT and E2E, with the SLO."""
    served = [record for record in data.records if record.ok]
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, 3.4), layout="constrained")
        axis = figure.subplots()
        panels.shares(axis, [r.ttft for r in served], "TTFT", BLUE)
        panels.shares(axis, [r.e2e for r in served], "E2E", GREEN)
        for bound in data.slo.bounds:
            if bound.quantity in ("ttft", "e2e"):
                axis.plot(bound.limit, bound.quantile, "x", color=RED, label=f"SLO {bound}")
        axis.set(xlabel="seconds from the intended start", ylabel="share of answers", ylim=(0, 1))
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.legend(loc="lower right")
        return _picture("latency", "Cumulative shares of TTFT and E2E.", figure)


def runs_picture(groups: Sequence[tuple[str, Sequence[RunData]]]) -> Picture:
    """Draw running replicas and median TTFT of runs, with a colour for each group."""
    with rc_context(_STYLE):
        figure = runs_figure(groups)
        return _picture("runs", "Running replicas and median TTFT of each run.", figure)


def runs_figure(groups: Sequence[tuple[str, Sequence[RunData]]]) -> Figure:
    """Draw the runs of all groups, see `runs_picture`."""
    figure, axes = _panels(2, [1, 1], 5)
    for colour, (name, runs) in zip(cycle(_RUN_COLOURS), groups, strict=False):
        for number, data in enumerate(runs):
            panels.overlay(axes, data, colour, "" if number else name)
    panels.legend(axes[0])
    return figure


def _panels(count: int, heights: list[float], inches: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_WIDTH_INCHES, inches), layout="constrained")
    axes = figure.subplots(count, 1, sharex=True, height_ratios=heights)
    return figure, list(axes)


def _finish(figure: Figure, axes: Sequence[Axes], data: RunData) -> None:
    axes[-1].set_xlabel("seconds from the beginning of the load")
    begin = data.offset
    axes[0].set_xlim(begin, begin + data.bins.width * data.bins.count)
    figure.align_ylabels(axes)


def _picture(name: str, alt: str, figure: Figure) -> Picture:
    return Picture(name, alt, _drawn(figure, "svg"), _drawn(figure, "png"))


def _drawn(figure: Figure, form: str) -> bytes:
    file = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {}
    figure.savefig(file, format=form, dpi=_DPI, metadata=metadata)
    return file.getvalue()
