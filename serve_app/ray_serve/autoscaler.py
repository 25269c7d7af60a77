"""Plays the policy of scaling/ in Serve's controller: reports in, a target and its reasons out."""

import logging
import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ray.serve.autoscaling_policy import default_autoscaling_policy
from ray.util import metrics

from serve_app.access.repeater import Repeater
from serve_app.ray_serve.scaling_file import CHECK_EVERY_S, NO_GOALS, ScalingFile
from serve_app.scaling.explanation import STATE, DecisionRecord, Explanation
from serve_app.scaling.memory import Aim, Observation, PolicyMemory, with_learned
from serve_app.scaling.meter import NAMES
from serve_app.scaling.policy import ScalingDecision, decide
from serve_app.scaling.reports import ReportedWork
from serve_app.scaling.schedules import Schedule, TargetBounds, target_bounds

if TYPE_CHECKING:
    from serve_app.ray_serve.scaling_store import ScalingStore

logger = logging.getLogger("ray.serve")

_DECIDE_S = 1.0


class Context(Protocol):
    """The part of Serve's AutoscalingContext that is read."""

    current_num_replicas: int
    target_num_replicas: int
    total_queued_requests: float
    raw_metrics: Mapping[str, Mapping[Any, Sequence[Any]]] | None
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int


class Autoscaler:
    """Decides once a second for one pool, and returns its last answer between.

    `decides` is false in the shadow: then Serve's own policy decides, and this one is logged.
    """

    def __init__(
        self,
        pool: str,
        decides: bool,
        max_wait_s: float,
        quantile: float,
        start_s: float,
        request_s: float,
        slots: float,
        schedules: Sequence[Mapping[str, Any]] = (),
        file: str = "",
        store: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
        show: "Callable[[str, ScalingDecision, bool], None] | None" = None,
        default: Callable[[Any], float] = lambda context: default_autoscaling_policy(context)[0],
    ) -> None:
        self._default = default
        self._pool = pool
        self._decides = decides
        self._aim = Aim(wait_s=max_wait_s, quantile=quantile, start_s=start_s)
        self._schedules = tuple(Schedule(**schedule) for schedule in schedules)
        self._file = ScalingFile(Path(file), pool) if file else None
        if self._file:
            self._repeat(self._file.check, CHECK_EVERY_S)
        self._now = now
        self._show = show or ScalingGauges().show
        self._memory = PolicyMemory()
        self._reported = ReportedWork(slot_s=request_s, slots=slots)
        self._next = -math.inf
        self._target: int | None = None
        self._explanation: Explanation | None = None
        self._arrived_s = 0.0  # work since the store was written
        self._store = self._new_store(store) if store else None

    def _new_store(self, options: Mapping[str, str]) -> "ScalingStore":
        """Return a store that is written or read once a minute."""
        # The import of Redis takes 50 ms.
        from serve_app.ray_serve.scaling_store import EVERY_S, ScalingStore, connect_store

        reference = weakref.WeakMethod(self._learned)

        def learned() -> tuple[PolicyMemory, float]:
            method = reference()
            return method() if method else (PolicyMemory(), 0.0)

        store = ScalingStore(connect_store(**options), self._pool, learned)
        self._repeat(store.step, EVERY_S, first_s=0.0)
        return store

    def _repeat(
        self, step: Callable[[], None], every_s: float, first_s: float | None = None
    ) -> None:
        """Repeat `step`, which must not refer to this object, in a thread."""
        repeater = Repeater(step, every_s, first_s)
        repeater.start()
        # Serve makes another one at each change of the deployment, and never closes this one.
        weakref.finalize(self, repeater.stop)

    def _learned(self) -> tuple[PolicyMemory, float]:
        """Return the memory, and the work that has arrived since the last call."""
        arrived_s, self._arrived_s = self._arrived_s, 0.0
        return self._memory, arrived_s

    def target(self, context: Context) -> float:
        """Return the number of replicas to have."""
        now = self._now()
        # A clock that went back must not hold decisions back.
        if not self._next - _DECIDE_S <= now < self._next:
            self._next = now + _DECIDE_S
            self._decide(context, now)
        if not self._decides:
            return self._default(context)
        return context.target_num_replicas if self._target is None else self._target

    @property
    def state(self) -> dict[str, Any]:
        """The explanation of the target, which Serve keeps beside it."""
        return {STATE: self._explanation} if self._explanation else {}

    def _decide(self, context: Context, now: float) -> None:
        self._reported = self._reported.after(
            _latest(context.raw_metrics or {}), context.total_queued_requests
        )
        self._arrived_s += self._reported.arrived_s
        if self._store and (learned := self._store.take()):
            self._memory = with_learned(self._memory, learned)
        aim = self._aim_in_force()
        observation = self._observation(context, now)
        decision, self._memory = decide(self._memory, observation, aim, self._limits(context, now))
        self._target, is_change = decision.target, decision.target != observation.target
        self._explain(DecisionRecord.of(decision, observation.target, now), is_change)
        self._show(self._pool, decision, is_change)

    def _explain(self, record: DecisionRecord, is_change: bool) -> None:
        explanation = self._explanation or Explanation(self._decides, record)
        self._explanation = explanation.after(record, is_change)
        if is_change:
            verb = "set" if self._decides else "would set"
            logger.info("%s pool %s %s", verb, self._pool, record.change)

    def _observation(self, context: Context, now: float) -> Observation:
        reported = self._reported
        # As a shadow it continues from its own last target.
        target = context.target_num_replicas
        if not self._decides and self._target is not None:
            target = self._target
        return Observation(
            now,
            *(context.current_num_replicas, target),
            *(reported.arrived_s, reported.waiting_s, reported.slot_s),
        )

    def _aim_in_force(self) -> Aim:
        goals = self._file.goals if self._file else NO_GOALS
        return replace(
            self._aim,
            wait_s=goals.max_wait_s or self._aim.wait_s,
            quantile=goals.quantile or self._aim.quantile,
        )

    def _limits(self, context: Context, now: float) -> TargetBounds:
        start_s = self._memory.starts.quantile(self._aim.start_quantile, self._aim.start_s)
        bounds = TargetBounds(
            context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        )
        schedules = self._schedules
        if self._file:
            self._file.bounds = bounds
            if self._file.goals.schedules is not None:
                schedules = tuple(item.schedule for item in self._file.goals.schedules)
        return target_bounds(schedules, bounds, now, start_s)


class ScalingGauges:
    """Shows the last decision of each pool as gauges of the controller."""

    def __init__(self) -> None:
        self._gauges = {
            name: metrics.Gauge(f"llm_scaling_{name}", text, ("pool",))
            for name, text in {
                "load": "Replicas that would be busy if no request waited.",
                "forecast": "Replicas that the forecast asks for.",
                "target": "Replicas that the policy `ahead` has, or would have.",
                "start_seconds": "Seconds in which nine of ten replicas start.",
            }.items()
        }
        self._changes = metrics.Counter(
            "llm_scaling_changes", "Changes of the target, by the bound that won.", ("pool", "by")
        )

    def show(self, pool: str, decision: ScalingDecision, is_change: bool) -> None:
        values = {
            "load": decision.load,
            "forecast": decision.forecast.load if decision.forecast else 0.0,
            "target": float(decision.target),
            "start_seconds": decision.start_s,
        }
        for name, value in values.items():
            self._gauges[name].set(value, {"pool": pool})
        if is_change:
            self._changes.inc(1, {"pool": pool, "by": decision.by})


def _latest(series: Mapping[str, Mapping[Any, Sequence[Any]]]) -> dict[str, dict[str, float]]:
    """Return the last number of each of the replicas' series, by replica and name."""
    reports: dict[str, dict[str, float]] = {}
    for name in NAMES & series.keys():
        for replica, points in series[name].items():
            if points:
                # Hundreds of times a second: a replica's own hash and text take a while.
                reports.setdefault(replica.unique_id, {})[name] = points[-1].value
    return reports
