"""The service's own policy `ahead` in virtual time."""

from collections.abc import Callable, Sequence

from serve_app.scaling.memory import Aim, Observation, PolicyMemory
from serve_app.scaling.policy import ScalingDecision, decide
from serve_app.scaling.reports import ReportedWork, Reports
from serve_app.scaling.schedules import Schedule, TargetBounds, target_bounds
from serve_app.scaling_settings import Autoscaling

_DECIDE_S = 1.0


class AheadPolicy:
    """Plays Serve's controller with the policy `ahead`, which decides once a second.

    `memory` has the learned state, and `slot_s` the learned time of a request in its slot, from
    which another run may begin. `begin_s`: the time at which that run begins. `clock`: converts a
    time to the controller's clock. `slots`: of a replica, until one has reported.
    """

    def __init__(
        self,
        aim: Aim,
        scaling: Autoscaling,
        memory: PolicyMemory | None = None,
        begin_s: float = 0.0,
        schedules: Sequence[Schedule] = (),
        clock: Callable[[float], float] = lambda now: now,
        slot_s: float | None = None,
        slots: int = 1,
    ) -> None:
        self._aim = aim
        self._bounds = TargetBounds(scaling.min_replicas, scaling.max_replicas)
        self._schedules = schedules
        self._begin_s = begin_s
        self._clock = clock
        self._reports: Reports = {}
        self._queued = 0
        self._reported = ReportedWork(slot_s=slot_s or scaling.expected_request_s, slots=slots)
        self._next = 0.0
        self.last: int | None = None  # target
        self.memory = memory or PolicyMemory()
        self.decisions: list[tuple[float, ScalingDecision]] = []

    @property
    def slot_s(self) -> float:
        """The seconds for which a request holds its slot, as learned so far."""
        return self._reported.slot_s

    def reported(self, reports: Reports, queued: int) -> None:
        self._reports, self._queued = reports, queued

    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        """Return the new target; between two decisions, the last one."""
        if now < self._next:
            return target if self.last is None else self.last
        self._next = now + _DECIDE_S
        if running == 0 and (ongoing > 0 or self._queued):
            self.last = max(1, target)  # Serve does not call a policy then
            return self.last
        decision = self._decide(self._clock(now + self._begin_s), running, target)
        self.last = decision.target
        return decision.target

    def _decide(self, now: float, running: int, target: int) -> ScalingDecision:
        self._reported = work = self._reported.after(self._reports, self._queued)
        observation = Observation(now, running, target, work.arrived_s, work.waiting_s, work.slot_s)
        start_s = self.memory.starts.quantile(self._aim.start_quantile, self._aim.start_s)
        bounds = target_bounds(self._schedules, self._bounds, now, start_s)
        decision, self.memory = decide(self.memory, observation, self._aim, bounds)
        if decision.target != target:
            self.decisions.append((now, decision))
        return decision
