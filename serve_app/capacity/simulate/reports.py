"""What the controller hears of the load, and when.

Serve's router notes its queue and each replica's ongoing requests every `record_s`, keeps
`look_back_period_s` of that, and pushes it all every `metrics_interval_s`. Between two pushes the
controller holds the last values to be true. It leaves out replicas that no longer run, and opens
its window when every series has begun: so a new replica shortens the memory of all
(`RouterMetricsManager`, `DeploymentAutoscalingState` in Ray 2.60). Replicas under HAProxy report
in the same rhythm themselves.
"""

from collections.abc import Sequence

from serve_app.capacity.policy import EMPTY, Window, merged
from serve_app.capacity.simulate.replica import Replica
from serve_app.settings import Autoscaling

# RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR
_RECORD_FACTOR = 0.2

Series = tuple[list[float], list[float]]  # times, values


class Reports:
    def __init__(self, scaling: Autoscaling) -> None:
        self.push_s = scaling.metrics_interval_s
        self.record_s = min(_RECORD_FACTOR * scaling.look_back_period_s, self.push_s)
        self._look_back_s = scaling.look_back_period_s
        self._queued: Series = ([], [])
        self._ongoing: dict[int, Series] = {}
        self._pushed: dict[int, Series] = {}
        self._pushed_queue: Series = ([], [])
        self._window: Window | None = EMPTY

    def record(self, now: float, known: Sequence[Replica], queued: int) -> None:
        """`known`: the replicas that have been sent a request, running or with requests left."""
        _add(self._queued, now, queued)
        for replica in known:
            _add(self._ongoing.setdefault(replica.number, ([], [])), now, replica.ongoing)
        self._forget(now - self._look_back_s)

    def push(self, now: float, known: Sequence[Replica], queued: int) -> None:
        """The controller has it at once; what has no point yet gets one."""
        self._pushed_queue = _copy(self._queued) if self._queued[0] else ([now], [float(queued)])
        self._pushed = {
            each.number: _copy(self._ongoing[each.number])
            if each.number in self._ongoing
            else ([now], [float(each.ongoing)])
            for each in known
        }
        self._window = None

    def running_changed(self) -> None:
        """Series of other replicas count from now on."""
        self._window = None

    def ongoing(self, now: float, running: Sequence[Replica]) -> float:
        """The number of ongoing requests that the controller believes in."""
        if self._window is None:
            alive = [self._pushed[r.number] for r in running if r.number in self._pushed]
            self._window = merged([*alive, self._pushed_queue])
        return self._window.mean(now)

    def _forget(self, before: float) -> None:
        _cut(self._queued, before)
        for number in list(self._ongoing):
            series = self._ongoing[number]
            _cut(series, before)
            if not series[0]:
                del self._ongoing[number]


def _add(series: Series, now: float, value: float) -> None:
    series[0].append(now)
    series[1].append(float(value))


def _cut(series: Series, before: float) -> None:
    times, values = series
    while times and times[0] <= before:
        del times[0], values[0]


def _copy(series: Series) -> Series:
    return series[0][:], series[1][:]
