"""The service's own policy `ahead` in virtual time."""

from collections.abc import Callable, Sequence

from serve_app.capacity.simulate.policies import WorkReport
from serve_app.scaling.memory import Aim, Observation, PolicyMemory
from serve_app.scaling.policy import ScalingDecision, decide
from serve_app.scaling.schedules import Schedule, TargetBounds, target_bounds
from serve_app.scaling_settings import Autoscaling

_DECIDE_S = 1.0
_NOTHING = WorkReport(0.0, 0.0, 0.0)


class AheadPolicy:
    """Plays Serve's controller with the policy `ahead`, which decides once a second.

    `memory` has the learned state, from which another run may begin. `begin_s`: the time at which
    that run begins. `clock`: converts a time to the controller's clock.
    """

    def __init__(
        self,
        aim: Aim,
        scaling: Autoscaling,
        memory: PolicyMemory | None = None,
        begin_s: float = 0.0,
        schedules: Sequence[Schedule] = (),
        clock: Callable[[float], float] = lambda now: now,
    ) -> None:
        self._aim = aim
        self._bounds = TargetBounds(scaling.min_replicas, scaling.max_replicas)
        self._schedules = schedules
        self._begin_s = begin_s
        self._clock = clock
        self._report = _NOTHING
        self._arrived_s = 0.0
        self._next = 0.0
        self.last: int | None = None  # target
        self.memory = memory or PolicyMemory()
        self.decisions: list[tuple[float, ScalingDecision]] = []

    def reported(self, report: WorkReport) -> None:
        self._report = report

    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        """Return the new target; between two decisions, the last one."""
        if now < self._next:
            return target if self.last is None else self.last
        self._next = now + _DECIDE_S
        if running == 0 and (ongoing > 0 or self._report.waiting_s > 0):
            self.last = max(1, target)  # Serve does not call a policy then
            return self.last
        decision = self._decide(self._clock(now + self._begin_s), running, target)
        self.last = decision.target
        return decision.target

    def _decide(self, now: float, running: int, target: int) -> ScalingDecision:
        report = self._report
        arrived_s, self._arrived_s = report.arrived_s - self._arrived_s, report.arrived_s
        observation = Observation(
            now, running, target, max(0.0, arrived_s), report.waiting_s, report.slot_s
        )
        start_s = self.memory.starts.quantile(self._aim.start_quantile, self._aim.start_s)
        bounds = target_bounds(self._schedules, self._bounds, now, start_s)
        decision, self.memory = decide(self.memory, observation, self._aim, bounds)
        if decision.target != target:
            self.decisions.append((now, decision))
        return decision
