"""Metrics that reach Ray's controller, with their delays (Ray 2.60).

Behind Serve's proxy and behind a gateway the router reports its queue and the requests of each
replica (`RouterMetricsManager`). Under HAProxy the replicas report (`ReplicaMetricsManager`). Both
record points periodically, keep them for `look_back_period_s` and push all of them every
`metrics_interval_s`. Between pushes the controller uses the last values. It ignores replicas that
do not run, and its window opens when every series has begun, so that a new replica shortens the
window of all (`DeploymentAutoscalingState`).
"""

import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.fleet import SimulatedFleet
from serve_app.capacity.simulate.policy import EMPTY, ReportWindow, merged
from serve_app.capacity.simulate.replica import Replica
from serve_app.capacity.simulate.router import Router
from serve_app.scaling_settings import Autoscaling

# RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR
_RECORD_FACTOR = 0.2
_QUEUE = -1  # number of its series; other series have the numbers of replicas

Points = tuple[NDArray[np.float64], NDArray[np.float64]]  # times, values


class LoadReporter(Protocol):
    """Reports to the controller, by its own events."""

    def started(self, replica: Replica) -> None:
        """Note a new process."""

    def woken(self) -> None:
        """Note a waiting request without any replica."""


class LoadReport:
    """The series that were pushed to the controller."""

    def __init__(self) -> None:
        self._series: dict[int, Points] = {}
        self._window: ReportWindow | None = EMPTY

    def replace(self, series: dict[int, Points]) -> None:
        self._series = series
        self._window = None

    def take(self, number: int, points: Points) -> None:
        self._series[number] = points
        self._window = None

    def forget(self, number: int) -> None:
        self._series.pop(number, None)

    def running_changed(self) -> None:
        """Note a change of the running replicas."""
        self._window = None

    def ongoing(self, now: float, running: Sequence[Replica]) -> float:
        """Return the number of ongoing requests that the controller computes."""
        if self._window is None:
            numbers = [_QUEUE, *(replica.number for replica in running)]
            self._window = merged([self._series[n] for n in numbers if n in self._series])
        return self._window.mean(now)


class RouterReports:
    """Reports of one router for all replicas: it records, then pushes."""

    def __init__(
        self,
        events: EventQueue,
        scaling: Autoscaling,
        rng: random.Random,
        load_report: LoadReport,
        fleet: SimulatedFleet,
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
        """Do nothing: the router records a replica from its first request on."""

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
        """Push all series; one without a point gets its current value."""
        now = self._events.now
        self._load_report.replace(
            {
                number: self._recorded[number].points()
                if number in self._recorded
                else (np.array([now]), np.array([float(value)]))
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
    """Reports of the replicas: a replica pushes, then records, from the start of its process on."""

    def __init__(
        self, events: EventQueue, scaling: Autoscaling, rng: random.Random, load_report: LoadReport
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
        """Do nothing: without a replica nothing reports to the controller."""

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
    """The recent points of one series."""

    __slots__ = ("_times", "_values")

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._values: deque[float] = deque()

    def add(self, now: float, value: float) -> None:
        self._times.append(now)
        self._values.append(float(value))

    def since(self, begin: float) -> bool:
        """Drop points until `begin`. Returns whether any are left."""
        while self._times and self._times[0] <= begin:
            self._times.popleft()
            self._values.popleft()
        return bool(self._times)

    def points(self) -> Points:
        return np.array(self._times), np.array(self._values)


def _record_s(scaling: Autoscaling) -> float:
    return min(_RECORD_FACTOR * scaling.look_back_period_s, scaling.metrics_interval_s)
