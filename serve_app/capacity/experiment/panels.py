"""The axes of pictures: load, replicas, latency, failures, requests, CPU."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from serve_app.capacity.experiment.series import Bins, Series, series
from serve_app.capacity.results.cluster_samples import Sample
from serve_app.capacity.results.request_records import Record
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.workload.shapes import Shape

# A palette for colour-blind readers (Okabe and Ito).
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#777777"
PURPLE, SKY, BLACK = "#cc79a7", "#56b4e9", "#000000"
COLOURS = [RED, PURPLE, ORANGE, SKY, GREY, "#f0e442"]


@dataclass(frozen=True, slots=True)
class RunData:
    """Records and samples of one run. The axis of time starts at `load_start`."""

    records: Sequence[Record]
    samples: Sequence[Sample]
    slo: Slo
    load_start: float
    shape: Shape | None = None
    slots: int | None = None

    @property
    def bins(self) -> Bins:
        moments = [
            self.load_start,
            *(s.at for s in self.samples),
            *(r.intended for r in self.records),
        ]
        return Bins.over(min(moments), max(moments), len(self.records))

    @property
    def offset(self) -> float:
        """Seconds from the start of the load to the first bin; negative for a bin before it."""
        return self.bins.begin - self.load_start

    @property
    def clock(self) -> list[float]:
        return [sample.at - self.load_start for sample in self.samples]


def load(axis: Axes, data: RunData, values: Series) -> None:
    """Draw arrivals and complete answers per second."""
    middles = moved(values.bins.middles, data)
    if data.shape:
        times = [at for at, _ in data.shape.points]
        levels = [level for _, level in data.shape.points]
        axis.plot(times, levels, color=GREY, linestyle=":", label="planned")
    axis.step(middles, values.offered, where="mid", color=ORANGE, label="offered (arrivals)")
    axis.step(middles, values.completed, where="mid", color=BLUE, label="completed (whole answers)")
    axis.set(ylabel="requests/s", ylim=(0, None))
    legend(axis)


def replicas(axis: Axes, data: RunData) -> None:
    """Draw replicas that start, run and drain, and the target."""
    clock, samples = data.clock, data.samples
    running = [float(s.running) for s in samples]
    starting = [running[i] + s.starting for i, s in enumerate(samples)]
    draining = [starting[i] + s.draining for i, s in enumerate(samples)]
    axis.fill_between(clock, running, step="post", color=GREEN, alpha=0.45, lw=0, label="running")
    axis.fill_between(
        clock, running, starting, step="post", color=ORANGE, alpha=0.5, lw=0, label="starting"
    )
    axis.fill_between(
        clock, starting, draining, step="post", color=GREY, alpha=0.4, lw=0, label="draining"
    )
    axis.step(clock, [s.target for s in samples], where="post", color=RED, lw=1.5, label="desired")
    loads = [*_of_policy(axis, data, "work", BLUE), *_of_policy(axis, data, "forecast", PURPLE)]
    axis.set(ylabel="replicas", ylim=(0, max([*draining, *loads, 1]) + 0.5))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axis)


def _of_policy(axis: Axes, data: RunData, name: str, colour: str) -> list[float]:
    """Draw a figure of the policy `ahead`; return its values, none under Serve's policy."""
    points = [
        (at, value)
        for at, sample in zip(data.clock, data.samples, strict=True)
        if (value := getattr(sample, name)) is not None
    ]
    if points:
        times, values = zip(*points, strict=True)
        axis.step(times, values, where="post", color=colour, lw=1, label=name)
    return [value for _, value in points]


def ttft(axis: Axes, data: RunData, values: Series) -> None:
    """Draw quantiles of the time to first token."""
    middles = moved(values.bins.middles, data)
    axis.plot(middles, values.ttft["p50"], ".-", ms=3, color=BLUE, label="p50")
    axis.plot(middles, values.ttft["p99"], ".-", ms=3, color=RED, label="p99")
    for bound in data.slo.bounds:
        if bound.quantity == "ttft":
            axis.axhline(bound.limit, color=GREY, ls="--", lw=1, label=f"SLO {bound}")
    axis.set_ylabel("TTFT, s")
    _logarithmic(axis)
    legend(axis)


def errors(axis: Axes, data: RunData, values: Series) -> None:
    """Draw failed requests by outcome."""
    middles, width = moved(values.bins.middles, data), values.bins.width
    below = [0] * values.bins.count
    for colour, (outcome, counts) in zip(COLOURS, sorted(values.failures.items()), strict=False):
        label = f"{outcome} ({sum(counts)})"
        axis.bar(middles, counts, width, bottom=below, color=colour, label=label)
        below = [low + high for low, high in zip(below, counts, strict=True)]
    axis.set(ylabel="failed", ylim=(0, max([*below, 1])))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    if values.failures:
        legend(axis)
    else:
        axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", va="center", color=GREEN)


def requests(axis: Axes, data: RunData) -> None:
    """Draw requests in replicas and waiting, and the slots."""
    clock = data.clock
    in_replicas = [sample.ongoing for sample in data.samples]
    waiting = [sample.ongoing + sample.queued for sample in data.samples]
    axis.fill_between(
        clock, in_replicas, step="post", color=BLUE, alpha=0.4, lw=0, label="at replicas"
    )
    axis.fill_between(
        clock,
        in_replicas,
        waiting,
        step="post",
        color=RED,
        alpha=0.5,
        lw=0,
        label="waiting for one",
    )
    if data.slots:
        places = [sample.running * data.slots for sample in data.samples]
        axis.step(
            clock, places, where="post", color=GREY, ls="--", label="slots of running engines"
        )
    axis.set(ylabel="requests", ylim=(0, None))
    legend(axis)


def per_replica(axis: Axes, data: RunData) -> None:
    """Draw the requests of a replica."""
    shares = [
        (s.ongoing + s.queued) / s.running if s.running else float("nan") for s in data.samples
    ]
    axis.step(data.clock, shares, where="post", color=BLUE, label="requests per running replica")
    if data.slots:
        axis.axhline(data.slots, color=GREY, ls="--", lw=1, label=f"slots of one ({data.slots})")
    axis.set(ylabel="per replica", ylim=(0, None))
    legend(axis)


def cpu(axis: Axes, data: RunData) -> None:
    """Draw the share of used CPU."""
    shares = [100 * s.cpu_share if s.cpu_share is not None else float("nan") for s in data.samples]
    axis.step(data.clock, shares, where="post", color=GREY, label="CPU of all nodes")
    axis.set(ylabel="CPU, %", ylim=(0, 100))
    legend(axis)


def shares(axis: Axes, values: Sequence[float | None], label: str, colour: str) -> None:
    """Draw the cumulative distribution of values."""
    ordered = sorted(value for value in values if value is not None)
    if ordered:
        shares = [(i + 1) / len(ordered) for i in range(len(ordered))]
        axis.step(ordered, shares, where="post", color=colour, label=label)


def overlay(axes: Sequence[Axes], data: RunData, colour: str, label: str) -> None:
    """Draw one of several runs: running replicas above, median TTFT below."""
    above, below = axes
    running = [sample.running for sample in data.samples]
    above.step(data.clock, running, where="post", color=colour, label=label, alpha=0.8)
    above.set_ylabel("replicas running")
    values = series(data.records, data.bins)
    below.plot(moved(values.bins.middles, data), values.ttft["p50"], color=colour, alpha=0.8)
    below.set(ylabel="TTFT p50, s", xlabel="seconds from the beginning of the load")
    _logarithmic(below)


def _logarithmic(axis: Axes) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def legend(axis: Axes) -> None:
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def moved(times: Sequence[float], data: RunData) -> list[float]:
    return [data.offset + time for time in times]
