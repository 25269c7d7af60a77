"""The policy's memory of a pool: its load, the learned values and the forecasts."""

import math
from dataclasses import dataclass, field, replace

from serve_app.scaling.forecast import Forecast
from serve_app.scaling.history import STEP_S, History
from serve_app.scaling.reserve import Reserve
from serve_app.scaling.starts import Starts

# Longer gaps mean that the clock jumped or that the controller did not run.
_MAX_GAP_S = 60.0
# The load is averaged over these times, in seconds.
_SPANS_S = (5.0, 15.0, 45.0, 120.0)
_PARTS = 4


@dataclass(frozen=True, slots=True)
class Aim:
    """The policy's goals and constants.

    `wait_s`: the longest wait of a request before its prompt is read. `quantile`: the share of the
    work for which replicas must be ready. `half_life_s`: of the errors of forecasts. `start_s`,
    `stop_s`: count until they are measured.
    """

    wait_s: float = 3.0
    quantile: float = 0.99
    half_life_s: float = 3 * 3600.0
    start_s: float = 60.0
    stop_s: float = 30.0
    start_quantile: float = 0.9


@dataclass(frozen=True, slots=True)
class Observation:
    """The state of a pool at `now`, in seconds.

    `arrived_s`: work that arrived since the last observation; `waiting_s`: work that waits;
    `slot_s`: how long a request holds its slot.
    """

    now: float
    running: int
    target: int
    arrived_s: float
    waiting_s: float
    slot_s: float


@dataclass(frozen=True, slots=True)
class PolicyMemory:
    """The state of one pool's policy.

    `peak`: the highest load of the current step. `kept`: the latest bounds of `down`, for as long
    as a stop and a start take; empty until `down` has been judged.
    """

    at: float | None = None
    rate: float = 0.0
    means: tuple[float, ...] = (0.0,) * len(_SPANS_S)
    load: float = 0.0
    worked_at: float | None = None  # when work last arrived or waited
    peak: float = 0.0
    step_ends: float = 0.0
    history: History = field(default_factory=History)
    up: Forecast = field(default_factory=lambda: Forecast(1))
    down: Forecast = field(default_factory=lambda: Forecast(1))
    kept: tuple[float, ...] = ()
    parts_left: int = 0  # of the forecasts since the last step
    reserve: Reserve = field(default_factory=Reserve)
    starts: Starts = field(default_factory=Starts)


def caught_up(memory: PolicyMemory, now: float) -> PolicyMemory:
    """Return a memory at `now`; the loads of a day ago replace those of the missed steps."""
    missed = int((now - memory.at) / STEP_S) if memory.at else 0
    return replace(
        memory,
        history=memory.history.filled(missed),
        up=replace(memory.up, pending=()),
        down=replace(memory.down, pending=()),
        parts_left=0,
    )


def with_learned(memory: PolicyMemory, learned: PolicyMemory) -> PolicyMemory:
    """Return `memory` with its present load and the learned values of another memory."""
    starts = replace(memory.starts, seconds=learned.starts.seconds)
    return replace(
        memory,
        history=learned.history,
        up=learned.up,
        down=learned.down,
        kept=learned.kept,
        reserve=learned.reserve,
        parts_left=0,
        starts=starts,
    )


def noted(memory: PolicyMemory, observation: Observation, aim: Aim) -> PolicyMemory:
    """Return the memory with an observation, and with the step that has ended, if any."""
    if memory.at is None:
        return _begun(memory, observation.now)
    passed = observation.now - memory.at
    if not 0 <= passed <= _MAX_GAP_S:
        return _begun(memory, observation.now)
    # Half the time: random arrivals then spread the load as much as they spread busy slots, without
    # the work that may wait.
    kernel_s = max(1.0, (observation.slot_s + aim.wait_s) / 2)
    kept = math.exp(-passed / kernel_s)
    arriving = max(0.0, observation.arrived_s) / passed if passed else memory.rate
    rate = memory.rate * kept + arriving * (1 - kept)
    means = tuple(
        rate + (mean - rate) * math.exp(-passed / span_s)
        for mean, span_s in zip(memory.means, _SPANS_S, strict=True)
    )
    load = max(
        mean * 2 * span_s / (2 * span_s + aim.wait_s)
        for mean, span_s in zip(means, _SPANS_S, strict=True)
    )
    # The next request waits until the running replicas have finished the waiting work.
    is_late = observation.waiting_s > aim.wait_s * max(1, observation.running)
    start_s = memory.starts.quantile(aim.start_quantile, aim.start_s)
    memory = replace(
        memory,
        at=observation.now,
        worked_at=observation.now
        if observation.arrived_s > 0 or observation.waiting_s > 0
        else memory.worked_at,
        rate=rate,
        means=means,
        load=load,
        peak=max(memory.peak, load),
        reserve=memory.reserve.after(
            observation.now, observation.arrived_s, is_late, 1 - aim.quantile, start_s
        ),
    )
    if memory.step_ends > observation.now:
        return _forecast_on(memory, aim)
    while memory.step_ends <= observation.now:
        memory = _stepped(memory, aim)
    return memory


def _begun(memory: PolicyMemory, now: float) -> PolicyMemory:
    """Return the memory at the beginning and after a gap."""
    return replace(memory, at=now, worked_at=now, step_ends=now + STEP_S)


def _stepped(memory: PolicyMemory, aim: Aim) -> PolicyMemory:
    """End a step; its forecasts follow, one part with each decision."""
    while memory.parts_left:
        memory = _forecast_on(memory, aim)
    start_s = memory.starts.quantile(aim.start_quantile, aim.start_s)
    ahead = math.ceil(start_s / STEP_S) + 1
    return replace(
        memory,
        history=memory.history.after(memory.peak),
        up=memory.up.over(ahead),
        down=memory.down.over(ahead + _restart_steps(memory, aim)),
        parts_left=_PARTS,
        reserve=memory.reserve.faded(2 ** (-STEP_S / aim.half_life_s)),
        peak=memory.load,
        step_ends=memory.step_ends + STEP_S,
    )


def _forecast_on(memory: PolicyMemory, aim: Aim) -> PolicyMemory:
    """Compute the next part of the forecasts, so that no single decision takes long."""
    history, left = memory.history, memory.parts_left
    judging = history.last, aim.quantile, aim.half_life_s
    match left:
        case 4:
            memory = replace(memory, up=memory.up.judged(*judging))
        case 3:
            memory = replace(memory, up=memory.up.chosen(history))
        case 2:
            memory = replace(memory, down=memory.down.judged(*judging))
        case 1:
            memory = _with_down(memory, memory.down.chosen(history), aim)
        case _:
            return memory
    return replace(memory, parts_left=left - 1)


def _with_down(memory: PolicyMemory, down: Forecast, aim: Aim) -> PolicyMemory:
    if not (down.best and down.is_judged):
        return replace(memory, down=down)
    kept = (*memory.kept, down.best.load)[-_restart_steps(memory, aim) :]
    return replace(memory, down=down, kept=kept)


def _restart_steps(memory: PolicyMemory, aim: Aim) -> int:
    """Return the steps that a stop and a start take."""
    return math.ceil((memory.starts.quantile(0.5, aim.start_s) + aim.stop_s) / STEP_S)
