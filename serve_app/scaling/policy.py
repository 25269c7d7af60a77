"""The number of replicas that a pool needs: a pure function of observed seconds of work.

The load is the number of replicas that would be busy if no request waited: work arrives, and each
second of it occupies a replica for a second, spread over the time that a request takes. The
target is the larger of the present load and of the forecast over the start-up time of a replica. A
replica is removed when the forecasts over that time, plus the time of a stop and a start, have not
needed it for as long as a stop and a start take.
"""

import math
from dataclasses import dataclass, replace

from serve_app.scaling.forecast import ForecastBound
from serve_app.scaling.memory import Aim, Observation, PolicyMemory, noted
from serve_app.scaling.reserve import Reserve
from serve_app.scaling.schedules import TargetBounds

# A predicted load up to this counts as none.
_NO_LOAD = 0.01


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """A target with its reasons. `by`: the bound that won; loads are in replicas."""

    target: int
    by: str
    load: float
    needed: int
    forecast: ForecastBound | None
    quantile: float
    start_s: float
    limits: TargetBounds


def decide(
    memory: PolicyMemory, observation: Observation, aim: Aim, limits: TargetBounds
) -> tuple[ScalingDecision, PolicyMemory]:
    """Return the target and the new memory."""
    memory = noted(memory, observation, aim)
    start_s = memory.starts.quantile(aim.start_quantile, aim.start_s)
    needed = _replicas(memory.load + _for_waiting(memory, observation, aim, start_s))
    highest = memory.history.highest
    up, down = (_reserved(memory.reserve, f.best, highest) for f in (memory.up, memory.down))
    target, by, bound = observation.target, "held", up
    high = max(needed, _replicas(up.load) if up else 0)
    low = max(high, _kept(memory, observation.target, highest))
    if high > observation.target:
        target, by = high, "load" if needed == high else "forecast"
    elif low < observation.target:
        target, by, bound = low, "forecast", down
    if limits.low == 0 and _is_unneeded(memory, observation.now, aim):
        target, by, bound = 0, "idle", down
    if target < limits.low:
        target, by = limits.low, limits.low_by
    if target > limits.high:
        target, by = limits.high, limits.high_by
    memory = replace(
        memory, starts=memory.starts.after(observation.now, observation.running, target)
    )
    decision = ScalingDecision(
        *(target, by, memory.load, needed, bound, aim.quantile, start_s, limits),
    )
    return decision, memory


def _for_waiting(memory: PolicyMemory, observation: Observation, aim: Aim, start_s: float) -> float:
    """Return the replicas that the waiting work needs besides those that arriving work keeps busy.

    Until a forecast has been judged, nothing is known of how the load goes on: each waiting request
    counts as a slot, as it does for Ray's policy. What has waited for the first replica, which has
    just come, asks for no further one yet.
    """
    if not memory.starts.running:
        return 0.0
    within_s = max(aim.wait_s, start_s)
    if observation.waiting_s and observation.slot_s and not memory.up.is_judged:
        within_s = min(within_s, observation.slot_s)
    return observation.waiting_s / within_s


def _is_unneeded(memory: PolicyMemory, now: float, aim: Aim) -> bool:
    """Tell whether even one replica costs more than the wait that it saves.

    A replica saves the next request the wait for a start. Unless the season predicts a request, it
    stays idle for as long as a start takes and as a stop and a start cost.
    """
    down = memory.down.best
    if memory.worked_at is None or (down and down.is_season and down.predicted >= _NO_LOAD):
        return False
    start_s, usual_s = (memory.starts.quantile(q, aim.start_s) for q in (aim.start_quantile, 0.5))
    return now - memory.worked_at > start_s + usual_s + aim.stop_s


def _kept(memory: PolicyMemory, target: int, highest: float) -> int:
    """Return the replicas that the forecasts have needed within the time of a stop and a start.

    A surplus replica goes when it has cost as much as its next start would. A forecast that has not
    been judged yet removes none.
    """
    if not memory.kept:
        return target
    return _replicas(memory.reserve.above(max(memory.kept), highest))


def _reserved(
    reserve: Reserve, bound: ForecastBound | None, highest: float
) -> ForecastBound | None:
    return replace(bound, load=reserve.above(bound.load, highest)) if bound else None


def _replicas(load: float) -> int:
    return math.ceil(load - 1e-6)
