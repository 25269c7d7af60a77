"""What the controller hears of the load, and when (Ray 2.60).

Behind Serve's own proxy and behind a gateway the router reports: its queue and each replica's
requests (`RouterMetricsManager`). Under HAProxy every replica reports itself
(`ReplicaMetricsManager`). Either notes a point now and then, keeps `look_back_period_s` of them,
and pushes it all every `metrics_interval_s`. Between pushes the controller holds the last values to
be true; it leaves out replicas that do not run, and its window opens when every series has begun,
so that a new replica shortens the memory of all (`DeploymentAutoscalingState`).
"""

import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from serve_app.capacity.simulate.events import Events
from serve_app.capacity.simulate.fleet import Fleet
from serve_app.capacity.simulate.policy import EMPTY, Window, merged
from serve_app.capacity.simulate.replica import Replica
from serve_app.capacity.simulate.router import Router
from serve_app.settings import Autoscaling

# RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR
_RECORD_FACTOR = 0.2
_QUEUE = -1  # its series, beside those of the replicas by their numbers

Points = tuple[list[float], list[float]]  # times, values


class Reporter(Protocol):
    """Tells the controller, by events of its own."""

    def started(self, replica: Replica) -> None:
        """A process is there."""

    def woken(self) -> None:
        """A request waits and there is no replica."""


class LoadReport:
    """The controller's side: the series that have been pushed to it."""

    def __init__(self) -> None:
        self._series: dict[int, Points] = {}
        self._window: Window | None = EMPTY

    def replace(self, series: dict[int, Points]) -> None:
        self._series = series
        self._window = None

    def take(self, number: int, points: Points) -> None:
        self._series[number] = points
        self._window = None

    def forget(self, number: int) -> None:
        self._series.pop(number, None)

    def running_changed(self) -> None:
        """Other replicas count from now on."""
        self._window = None

    def ongoing(self, now: float, running: Sequence[Replica]) -> float:
        """The number of ongoing requests that the controller believes in."""
        if self._window is None:
            numbers = [_QUEUE, *(replica.number for replica in running)]
            self._window = merged([self._series[n] for n in numbers if n in self._series])
        return self._window.mean(now)


class RouterReports:
    """One router notes for all, and then pushes."""

    def __init__(
        self,
        events: Events,
        scaling: Autoscaling,
        rng: random.Random,
        load_report: LoadReport,
        fleet: Fleet,
        router: Router,
    ) -> None:
        self._events = events
        self._load_report = load_report
        self._fleet = fleet
        self._router = router
        self._look_back_s = scaling.look_back_period_s
        self._push_s = scaling.metrics_interval_s
        self._record_s = _record_s(scaling)
        self._recorded: dict[int, RecordedSeries] = {}
        begin = rng.uniform(0, self._push_s)
        events.at(begin, self._record)
        events.at(begin, self._push)

    def started(self, replica: Replica) -> None:
        """The router knows it from its first request on."""

    def woken(self) -> None:
        self._report()

    def _record(self, _: None) -> None:
        now = self._events.now
        for number, value in self._values():
            if number not in self._recorded:
                self._recorded[number] = RecordedSeries()
            self._recorded[number].add(now, value)
        for number in list(self._recorded):
            if not self._recorded[number].since(now - self._look_back_s):
                del self._recorded[number]
        self._events.at(now + self._record_s, self._record)

    def _push(self, _: None) -> None:
        self._report()
        self._events.at(self._events.now + self._push_s, self._push)

    def _report(self) -> None:
        """What has no point yet gets one."""
        now = self._events.now
        self._load_report.replace(
            {
                number: self._recorded[number].points()
                if number in self._recorded
                else ([now], [float(value)])
                for number, value in self._values()
            }
        )

    def _values(self) -> Iterable[tuple[int, int]]:
        yield _QUEUE, len(self._router.pending)
        for replica in self._fleet.running:
            if replica.known:
                yield replica.number, replica.ongoing
        for replica in self._fleet.draining:
            if replica.ongoing:
                yield replica.number, replica.ongoing


class ReplicaReports:
    """Each replica pushes and then notes, in a rhythm that begins with its process."""

    def __init__(
        self, events: Events, scaling: Autoscaling, rng: random.Random, load_report: LoadReport
    ) -> None:
        self._events = events
        self._load_report = load_report
        self._rng = rng
        self._look_back_s = scaling.look_back_period_s
        self._push_s = scaling.metrics_interval_s
        self._record_s = _record_s(scaling)

    def started(self, replica: Replica) -> None:
        recorded = RecordedSeries()
        begin = self._events.now + self._rng.uniform(0, self._push_s)
        self._events.at(begin, self._push, (replica, recorded))
        self._events.at(begin, self._record, (replica, recorded))

    def woken(self) -> None:
        """Nobody is there who could say so: HAProxy needs a replica."""

    def _record(self, series: "tuple[Replica, RecordedSeries]") -> None:
        replica, recorded = series
        if not replica.gone:
            recorded.add(self._events.now, replica.ongoing)
            self._events.at(self._events.now + self._record_s, self._record, series)

    def _push(self, series: "tuple[Replica, RecordedSeries]") -> None:
        replica, recorded = series
        if replica.gone:
            self._load_report.forget(replica.number)
            return
        recorded.since(self._events.now - self._look_back_s)
        self._load_report.take(replica.number, recorded.points())
        self._events.at(self._events.now + self._push_s, self._push, series)


class RecordedSeries:
    """The points of one series that are not too old."""

    __slots__ = ("_times", "_values")

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._values: deque[float] = deque()

    def add(self, now: float, value: float) -> None:
        self._times.append(now)
        self._values.append(float(value))

    def since(self, begin: float) -> bool:
        """Drop what is older; whether anything is left."""
        while self._times and self._times[0] <= begin:
            self._times.popleft()
            self._values.popleft()
        return bool(self._times)

    def points(self) -> Points:
        return list(self._times), list(self._values)


def _record_s(scaling: Autoscaling) -> float:
    return min(_RECORD_FACTOR * scaling.look_back_period_s, scaling.metrics_interval_s)
