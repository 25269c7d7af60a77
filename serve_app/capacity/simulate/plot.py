"""Pictures of simulations, as SVG or PNG by the suffix of the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib.figure import Figure

from serve_app.capacity.simulate.compare import Score
from serve_app.capacity.simulate.result import Result

# A palette for colour-blind readers (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def curve(scores: Sequence[Score], title: str, path: Path) -> None:
    curve_figure(scores, title).savefig(path, dpi=150)


def curve_figure(scores: Sequence[Score], title: str) -> Figure:
    """Draw SLO attainment over replica-hours.

    A family is a line, or a star if it has one point; bars show 95 % confidence.
    """
    figure = Figure(figsize=(9.5, 5), layout="constrained")
    axes = figure.subplots()
    families = list(dict.fromkeys(score.family for score in scores))
    for colour, family in zip(_COLOURS * 2, families, strict=False):
        family_scores = sorted(
            (score for score in scores if score.family == family),
            key=lambda score: score.replica_hours.mean,
        )
        axes.errorbar(
            [score.replica_hours.mean for score in family_scores],
            [100 * (1 - score.attainment.mean) for score in family_scores],
            xerr=_bars([score.replica_hours for score in family_scores], 1),
            yerr=_bars([score.attainment for score in family_scores], 100),
            marker="o" if len(family_scores) > 1 else "*",
            markersize=5 if len(family_scores) > 1 else 13,
            linestyle="-" if len(family_scores) > 1 else "",
            zorder=2 if len(family_scores) > 1 else 3,
            label=family,
            color=colour,
            capsize=2,
        )
    _nines(axes)
    axes.set_xlabel("replica-hours paid for (starting, running, draining)")
    axes.set_ylabel("requests that met every bound (%)")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)  # inside it would hide points
    return figure


def _nines(axes: Any) -> None:
    """Scale the vertical axis so that 0, 90, 99, 99.9 and 100 % are equidistant."""
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(100, -0.02)
    axes.set_yticks([100, 10, 1, 0.1, 0], ["0", "90", "99", "99.9", "100"])
    axes.minorticks_off()


def over_time(result: Result, title: str, path: Path) -> None:
    """Draw load, replicas and times to first token of one simulation over time."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    load, replicas, ttft = figure.subplots(3, 1, sharex=True)
    minutes = [sample.at / 60 for sample in result.samples]
    load.plot(minutes, _smooth(result.arrived), color=_COLOURS[0])
    load.plot(minutes, _smooth(result.completed), color=_COLOURS[1], ls="--")
    load.set_ylabel("requests per s\n(10 s mean)")
    load.legend(["offered", "completed"], fontsize=8)
    for name, colour in (("target", _COLOURS[6]), ("running", _COLOURS[2])):
        values = [getattr(sample, name) for sample in result.samples]
        replicas.step(minutes, values, where="post", color=colour, label=name)
    replicas.set_ylabel("replicas")
    replicas.legend(fontsize=8)
    ttft.scatter(result.values("first") / 60, result.values("ttft"), s=1, color=_COLOURS[0])
    ttft.set_ylabel("time to first token (s)")
    ttft.set_xlabel("minutes")
    for axes in (load, replicas, ttft):
        axes.grid(alpha=0.3)
    load.set_title(title, fontsize=10, loc="left")
    figure.savefig(path, dpi=150)


def _bars(intervals: Sequence[Any], factor: float) -> list[float]:
    return [factor * (interval.high - interval.mean) for interval in intervals]


def _smooth(values: Sequence[float], width: int = 10) -> list[float]:
    sums, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - width] if index >= width else 0)
        sums.append(total / min(width, index + 1))
    return sums
