"""Pictures of simulations, as SVG or PNG by the file's name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib.figure import Figure

from serve_app.capacity.simulate.compare import Score
from serve_app.capacity.simulate.result import Result

# Distinct for colour-blind readers as well (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def curve(scores: Sequence[Score], title: str, path: Path) -> None:
    curve_figure(scores, title).savefig(path, dpi=150)


def curve_figure(scores: Sequence[Score], title: str) -> Figure:
    """SLO attainment against replica-hours: a line a family, a star where it is one point (these
    settings, tuned ones), bars of 95 % confidence.
    """
    figure = Figure(figsize=(9.5, 5), layout="constrained")
    axes = figure.subplots()
    families = list(dict.fromkeys(score.family for score in scores))
    for colour, family in zip(_COLOURS * 2, families, strict=False):
        mine = sorted(
            (score for score in scores if score.family == family),
            key=lambda score: score.replica_hours.mean,
        )
        axes.errorbar(
            [score.replica_hours.mean for score in mine],
            [100 * (1 - score.attainment.mean) for score in mine],
            xerr=_bars([score.replica_hours for score in mine], 1),
            yerr=_bars([score.attainment for score in mine], 100),
            marker="o" if len(mine) > 1 else "*",
            markersize=5 if len(mine) > 1 else 13,
            linestyle="-" if len(mine) > 1 else "",
            zorder=2 if len(mine) > 1 else 3,
            label=family,
            color=colour,
            capsize=2,
        )
    _nines(axes)
    axes.set_xlabel("replica-hours paid for (starting, running, draining)")
    axes.set_ylabel("requests that met every bound (%)")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)  # within it would lie on points
    return figure


def _nines(axes: Any) -> None:
    """The vertical axis counts nines: 0, 90, 99, 99.9 and 100 % lie as far apart."""
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(100, -0.02)
    axes.set_yticks([100, 10, 1, 0.1, 0], ["0", "90", "99", "99.9", "100"])
    axes.minorticks_off()


def over_time(result: Result, title: str, path: Path) -> None:
    """Load, replicas and times to first token of one simulation, on one time axis."""
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
